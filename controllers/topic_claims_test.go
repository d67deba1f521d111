package controllers

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/topic"
)

// topicsWanted are Topics of the form namespace/name=pattern, with " filter" behind
// when it has one; each is a second older than the next.
func topicsWanted(wanted ...string) []switchboardv1alpha1.Topic {
	var topics []switchboardv1alpha1.Topic
	for i, want := range wanted {
		name, pattern, _ := strings.Cut(want, "=")
		pattern, filter, _ := strings.Cut(pattern, " ")
		namespace, name, _ := strings.Cut(name, "/")
		topics = append(topics, switchboardv1alpha1.Topic{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: name, Generation: 1,
				CreationTimestamp: metav1.NewTime(time.Unix(int64(1000+i), 0)),
			},
			Spec: switchboardv1alpha1.TopicSpec{
				Pattern:       switchboardv1alpha1.TopicPattern(pattern),
				TopicSettings: switchboardv1alpha1.TopicSettings{Filter: filter},
			},
		})
	}
	return topics
}

func hubOfTeams(patterns ...string) *switchboardv1alpha1.Hub {
	hub := &switchboardv1alpha1.Hub{ObjectMeta: metav1.ObjectMeta{Namespace: "hubs", Name: "agents", UID: "1"}}
	hub.Spec.AllowedTopicNamespaces = []string{"a", "b", "c"}
	for _, p := range patterns {
		hub.Spec.Topics = append(hub.Spec.Topics, switchboardv1alpha1.HubTopicSpec{Pattern: switchboardv1alpha1.TopicPattern(p)})
	}
	return hub
}

// standing says of each claim, the oldest first, what came of it.
func standing(claims []*claim) []string {
	var all []string
	for _, c := range claims {
		s := topicName(c.topic)
		if c.reason != "" {
			s += " " + c.reason
		}
		if c.entry != nil {
			s += " has an entry"
		}
		if c.rivals.n > 0 {
			s += " over " + c.rivals.String()
		}
		all = append(all, s)
	}
	return all
}

// settingsOf are valid settings with the Hub's own topics.
func settingsOf(hub *switchboardv1alpha1.Hub) config.Config {
	c := config.Default()
	c.Hub, c.Topics = "h", manifests.NodeConfig(hub).Topics
	return c
}

func noneEarlier(*claim) *config.Topic { return nil }

func TestClaims(t *testing.T) {
	for name, test := range map[string]struct {
		own     []string // the Hub's patterns
		topics  []string
		want    []string
		message string // part of one claim's message
	}{
		"patterns that don't overlap": {
			topics: []string{"a/x=orders.>", "b/y=bills.*"},
			want:   []string{"a/x has an entry", "b/y has an entry"},
		},
		"the name is the pattern": {
			topics: []string{"a/orders.new=", "b/y=orders.new"},
			want:   []string{"a/orders.new has an entry over b/y (orders.new)", "b/y Conflict"},
		},
		"the older one wins": {
			topics:  []string{"b/y=orders.>", "a/x=orders.*"},
			want:    []string{"b/y has an entry over a/x (orders.*)", "a/x Conflict"},
			message: `"orders.*" overlaps "orders.>" of Topic b/y, which is older`,
		},
		"who is refused holds nobody up": {
			topics: []string{"a/x=a.>", "b/y=*.b", "c/z=c.b"},
			want:   []string{"a/x has an entry over b/y (*.b)", "b/y Conflict", "c/z has an entry"},
		},
		"one against several": {
			topics:  []string{"a/x=a", "b/y=b", "c/z=>"},
			want:    []string{"a/x has an entry over c/z (>)", "b/y has an entry over c/z (>)", "c/z Conflict"},
			message: `">" overlaps "a" of Topic a/x`,
		},
		"the Hub's own wins over all": {
			own:     []string{"x", "orders.*"},
			topics:  []string{"a/x=orders.>", "b/y=orders.new"},
			want:    []string{"a/x Conflict", "b/y Conflict"},
			message: `"orders.>" overlaps "orders.*", which is spec.topics[1] of Hub hubs/agents`,
		},
		"a namespace that is not allowed takes nothing": {
			topics:  []string{"d/x=orders.>", "a/y=orders.>"},
			want:    []string{"d/x NamespaceNotAllowed", "a/y has an entry"},
			message: "Hub hubs/agents takes no Topics of namespace d: its spec.allowedTopicNamespaces must name it",
		},
		"the Hub's own namespace is allowed": {
			topics: []string{"hubs/x=orders.>"},
			want:   []string{"hubs/x has an entry"},
		},
		"a wrong filter keeps its pattern from others": {
			topics:  []string{"a/x=orders.> nonsense", "b/y=orders.new"},
			want:    []string{"a/x InvalidFilter over b/y (orders.new)", "b/y Conflict"},
			message: "undeclared reference to 'nonsense'",
		},
		"a name that is no pattern": {
			topics:  []string{"a/" + strings.Repeat("x.", 32) + "x="},
			want:    []string{"a/" + strings.Repeat("x.", 32) + "x InvalidSpec"},
			message: "more than 32 tokens",
		},
	} {
		t.Run(name, func(t *testing.T) {
			claims := claimsOf(hubOfTeams(test.own...), topicsWanted(test.topics...))
			fill(claims, noneEarlier)
			if diff := cmp.Diff(test.want, standing(claims)); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			if !slices.ContainsFunc(claims, func(c *claim) bool { return strings.Contains(c.message, test.message) }) {
				t.Errorf("no message has %q: %q", test.message, claims[0].message)
			}
		})
	}
}

func TestTopicsOfOneSecondGoByTheirNames(t *testing.T) {
	topics := topicsWanted("b/a=x", "a/z=x", "a/b=x")
	for i := range topics {
		topics[i].CreationTimestamp = metav1.NewTime(time.Unix(1, 0))
	}
	want := []string{"a/b over a/z (x), b/a (x)", "a/z Conflict", "b/a Conflict"}
	if diff := cmp.Diff(want, standing(claimsOf(hubOfTeams(), topics))); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
}

func TestEveryNamespaceCanBeAllowed(t *testing.T) {
	hub := hubOfTeams()
	hub.Spec.AllowedTopicNamespaces = []string{"*"}
	if got := standing(claimsOf(hub, topicsWanted("any/x=a"))); got[0] != "any/x" {
		t.Errorf("got %q, want it accepted", got)
	}
}

// TestNoNameHasTwoOwners makes claims at random and compares with asking of each
// pair.
func TestNoNameHasTwoOwners(t *testing.T) {
	tokens := []string{"a", "b", "*", ">"}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var wanted []string
		for len(wanted) < 12 {
			var p []string
			for range 1 + random.IntN(3) {
				p = append(p, tokens[random.IntN(len(tokens))])
			}
			if pattern := strings.Join(p, "."); topic.CheckPattern(pattern) == nil {
				wanted = append(wanted, fmt.Sprintf("a/t%d=%s", len(wanted), pattern))
			}
		}
		var owners []string
		for i, c := range claimsOf(hubOfTeams(), topicsWanted(wanted...)) {
			pattern := c.pattern
			refused := slices.ContainsFunc(owners, func(p string) bool { return topic.Overlap(p, pattern) })
			if c.owns == refused {
				t.Fatalf("%q: claim %d has its pattern: %v; it overlaps an older one: %v", wanted, i, c.owns, refused)
			}
			if c.owns {
				owners = append(owners, pattern)
			}
		}
	}
}

// With tenancy a Topic is in the names of its namespace, and meets those of others only where
// the Hub's own patterns do.
func TestClaimsOfTenants(t *testing.T) {
	hub := hubOfTeams("*.bills", "hubs.>")
	hub.Spec.Tenancy = switchboardv1alpha1.TenancyNamespace
	claims := claimsOf(hub, topicsWanted("a/x=orders.>", "b/y=orders.>", "a/z=orders.new", "c/x=bills", "hubs/x=y"))
	fill(claims, noneEarlier)
	if diff := cmp.Diff([]string{"a/x has an entry over a/z (a.orders.new)", "b/y has an entry", "a/z Conflict", "c/x Conflict", "hubs/x Conflict"}, standing(claims)); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	if got, want := claims[2].message, `"a.orders.new" overlaps "a.orders.>" of Topic a/x, which is older`; got != want {
		t.Errorf("the message is %s, want %s", got, want)
	}
	status := summarizeTopic(claims[1], hub, noHub, time.Unix(0, 0))
	if claims[1].entry.Pattern != "b.orders.>" || status.Pattern != "b.orders.>" {
		t.Errorf("the entry is for %q, the status for %q, want b.orders.>", claims[1].entry.Pattern, status.Pattern)
	}
}

func TestWrongFilterKeepsTheLastGoodSettings(t *testing.T) {
	claims := claimsOf(hubOfTeams(), topicsWanted("a/x=orders.> nonsense", "b/y=bills"))
	fill(claims, func(c *claim) *config.Topic {
		return &config.Topic{Pattern: c.pattern, Filter: "artifact.size < 1"}
	})
	rendered, err := withTopics(config.Default(), claims)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"pattern: orders.>", "artifact.size < 1", "pattern: bills"} {
		if !strings.Contains(string(rendered), want) {
			t.Errorf("the settings lack %q:\n%s", want, rendered)
		}
	}
	if c := claims[0]; c.reason != switchboardv1alpha1.ReasonInvalidFilter || !strings.Contains(c.message, "last good settings") {
		t.Errorf("%s: %s, want InvalidFilter and the last good settings named", c.reason, c.message)
	}
}

func TestSettingsFitTheirConfigMap(t *testing.T) {
	long := strings.Repeat(" ", 4000)
	for name, test := range map[string]struct {
		n, filter int
		fit       int
	}{
		"all of them":       {n: 200, fit: 200},
		"those of most use": {n: 8500, fit: config.MaxTopics},
		"up to a mebibyte":  {n: 400, filter: 4000, fit: 254},
	} {
		t.Run(name, func(t *testing.T) {
			var wanted []string
			for i := range test.n {
				wanted = append(wanted, fmt.Sprintf("a/t%d=team-%d.>", i, i))
			}
			topics := topicsWanted(wanted...)
			for i := range topics {
				if test.filter > 0 {
					topics[i].Spec.Filter = "true || " + long + "false"
				}
			}
			hub := hubOfTeams()
			claims := claimsOf(hub, topics)
			for _, c := range claims { // as fill does, which would compile every filter
				entry := manifests.TopicConfig(c.pattern, c.topic.Spec.TopicSettings)
				c.entry = &entry
			}
			base := settingsOf(hub)
			rendered, err := withTopics(base, claims)
			if err != nil {
				t.Fatal(err)
			}
			if len(rendered) > 1<<20 {
				t.Errorf("the settings have %d bytes, which no ConfigMap takes", len(rendered))
			}
			parsed, err := config.Parse(rendered)
			if err != nil {
				t.Fatalf("a node refuses the settings: %v", err)
			}
			if got := len(parsed.Topics); got != test.fit {
				t.Errorf("got %d Topics in %d bytes, want %d", got, len(rendered), test.fit)
			}
			for i, c := range claims {
				if in := i < test.fit; (c.reason == "") != in || (c.entry != nil) != in || (c.reason == switchboardv1alpha1.ReasonNoRoom) == in {
					t.Fatalf("claim %d: reason %q, has an entry: %v", i, c.reason, c.entry != nil)
				}
			}
			if len(base.Topics) != 0 {
				t.Error("the Hub's own settings were changed")
			}
		})
	}
}

func TestOwnTopicsComeFirst(t *testing.T) {
	hub := hubOfTeams("own")
	claims := claimsOf(hub, topicsWanted("b/y=second", "a/x=third"))
	fill(claims, noneEarlier)
	rendered, err := withTopics(settingsOf(hub), claims)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := config.Parse(rendered)
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Topic{{Pattern: "own"}, {Pattern: "second"}, {Pattern: "third"}}
	if diff := cmp.Diff(want, parsed.Topics); diff != "" {
		t.Errorf("topics (-want +got):\n%s", diff)
	}
}

func TestFewNamesAFew(t *testing.T) {
	var f few
	for i := range 7 {
		f.add(fmt.Sprint(i))
	}
	if got, want := f.String(), "0, 1, 2, 3, 4 and 2 more"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func BenchmarkClaims(b *testing.B) {
	var wanted []string
	for i := range 5000 {
		wanted = append(wanted, fmt.Sprintf("a/t%d=team-%d.orders.>", i, i))
	}
	topics := topicsWanted(wanted...)
	for b.Loop() {
		claimsOf(hubOfTeams(), topics)
	}
}

// summarized is the status of a Topic as type=status reason lines.
func summarized(c *claim, hub *switchboardv1alpha1.Hub, applied metav1.Condition) []string {
	c.topic.Status = summarizeTopic(c, hub, applied, time.Unix(5000, 0))
	var got []string
	for _, c := range c.topic.Status.Conditions {
		got = append(got, fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason))
	}
	return got
}

func TestSummarizeTopic(t *testing.T) {
	condition := func(status metav1.ConditionStatus, reason string) metav1.Condition {
		return metav1.Condition{Type: switchboardv1alpha1.ConditionConfigApplied, Status: status, Reason: reason}
	}
	applied, applying := condition(metav1.ConditionTrue, "Applied"), condition(metav1.ConditionFalse, "Applying")
	paused := func(h *switchboardv1alpha1.Hub) { h.Spec.Paused = true }
	for name, test := range map[string]struct {
		hub     func(*switchboardv1alpha1.Hub)
		before  metav1.Condition // ConfigApplied when the Topic was looked at earlier, if it was
		change  func(*claim)     // after that
		applied metav1.Condition
		want    []string
	}{
		"nodes run it":             {applied: applied, want: []string{"Accepted=True Accepted", "Applied=True Applied"}},
		"nodes don't run it yet":   {applied: applying, want: []string{"Accepted=True Accepted", "Applied=False Applying", "Reconciling=True Applying"}},
		"nodes ran it before":      {before: applied, applied: applying, want: []string{"Accepted=True Accepted", "Applied=True Applied"}},
		"nodes ran another spec":   {before: applied, change: func(c *claim) { c.topic.Generation = 2 }, applied: applying, want: []string{"Accepted=True Accepted", "Applied=False Applying", "Reconciling=True Applying"}},
		"another hub's nodes did":  {before: applied, hub: func(h *switchboardv1alpha1.Hub) { h.CreationTimestamp = metav1.NewTime(time.Unix(6000, 0)) }, applied: applying, want: []string{"Accepted=True Accepted", "Applied=False Applying", "Reconciling=True Applying"}},
		"nobody knows":             {applied: condition(metav1.ConditionUnknown, "NodesUnreachable"), want: []string{"Accepted=True Accepted", "Applied=Unknown NodesUnreachable", "Reconciling=True NodesUnreachable"}},
		"there are no nodes":       {hub: func(h *switchboardv1alpha1.Hub) { h.Spec.Replicas = new(int32(0)) }, applied: condition(metav1.ConditionUnknown, "NoNodesReady"), want: []string{"Accepted=True Accepted", "Applied=Unknown NoNodesReady"}},
		"the Hub is paused":        {hub: paused, applied: applied, want: []string{"Accepted=True Accepted", "Applied=False Paused"}},
		"paused when all was well": {before: applied, hub: paused, applied: applied, want: []string{"Accepted=True Accepted", "Applied=True Applied"}},
		"refused":                  {change: func(c *claim) { c.refuse("Conflict", "x") }, applied: applied, want: []string{"Accepted=False Conflict", "Applied=False NotAccepted", "Stalled=True Conflict"}},
		"taken back":               {before: applied, change: func(c *claim) { c.refuse("Conflict", "x") }, applied: applied, want: []string{"Accepted=False Conflict", "Applied=False NotAccepted", "Stalled=True Conflict"}},
		"no hub":                   {change: func(c *claim) { c.refuse(switchboardv1alpha1.ReasonHubNotFound, "x") }, applied: noHub, want: []string{"Accepted=False HubNotFound", "Applied=False NotAccepted", "Reconciling=True HubNotFound"}},
		"it won":                   {change: func(c *claim) { c.rivals.add("b/y (b)") }, applied: applied, want: []string{"Accepted=True Accepted", "Applied=True Applied", "Conflicted=True TopicsRefused"}},
	} {
		t.Run(name, func(t *testing.T) {
			hub := hubOfTeams()
			c := &claim{topic: &topicsWanted("a/x=a")[0], pattern: "a"}
			if test.before.Type != "" {
				c.topic.Status = summarizeTopic(c, hub, test.before, time.Unix(4000, 0))
			}
			if test.hub != nil {
				test.hub(hub)
			}
			if test.change != nil {
				test.change(c)
			}
			got := summarized(c, hub, test.applied)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
			again := c.topic.Status.DeepCopy()
			if got := summarizeTopic(c, hub, test.applied, time.Unix(9000, 0)); !cmp.Equal(*again, got) {
				t.Errorf("the same seen again is another status: %s", cmp.Diff(*again, got))
			}
		})
	}
}

func TestConflictEnds(t *testing.T) {
	c := &claim{topic: &topicsWanted("a/x=a")[0], pattern: "a"}
	c.rivals.add("b/y (b)")
	summarized(c, hubOfTeams(), noHub)
	c.rivals = few{}
	for _, line := range summarized(c, hubOfTeams(), noHub) {
		if strings.HasPrefix(line, switchboardv1alpha1.ConditionConflicted) {
			t.Errorf("got %s, want it gone", line)
		}
	}
}

func TestHubTellsOfItsTopics(t *testing.T) {
	seen := &observed{now: time.Unix(1, 0), topics: claimsOf(hubOfTeams(), topicsWanted("a/x=a", "b/y=a", "d/z=b"))}
	var conditions []metav1.Condition
	setTopicsAccepted(&conditions, 1, seen)
	want := "2 of 3 Topics are refused: b/y (Conflict), d/z (NamespaceNotAllowed)"
	if len(conditions) != 1 || conditions[0].Status != metav1.ConditionFalse || conditions[0].Message != want {
		t.Errorf("got %+v, want %q", conditions, want)
	}
	seen.topics = seen.topics[:1]
	setTopicsAccepted(&conditions, 1, seen)
	if conditions[0].Status != metav1.ConditionTrue || conditions[0].Reason != switchboardv1alpha1.ReasonAllAccepted {
		t.Errorf("got %+v, want it True", conditions)
	}
	seen.topics = nil
	setTopicsAccepted(&conditions, 1, seen)
	if len(conditions) != 0 {
		t.Errorf("got %+v without Topics, want none", conditions)
	}
}

func TestHubsAreFoundWhereTheOperatorLooks(t *testing.T) {
	r := &HubReconciler{Namespaces: []string{"a"}} // without a client: it must not be asked
	_, missing, err := r.findHub(t.Context(), client.ObjectKey{Namespace: "b", Name: "agents"})
	if want := "the operator looks for no Hubs in namespace b"; missing != want || err != nil {
		t.Errorf("got %q, %v, want %q", missing, err, want)
	}
}
