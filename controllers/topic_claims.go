package controllers

import (
	"cmp"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	switchboardv1alpha1 "github.com/switchboardhub/switchboard/api/v1alpha1"
	"github.com/switchboardhub/switchboard/controllers/manifests"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/hubnode/topic"
)

// everyNamespace in a Hub's allowedTopicNamespaces is all of them.
const everyNamespace = "*"

// claim is how one Topic stands with its Hub.
type claim struct {
	topic   *switchboardv1alpha1.Topic
	pattern string // in the hub's names
	age     int    // its place among the Hub's Topics, 0 is the oldest
	// reason and message say why the hub does not take the Topic as it is; empty
	// when it does.
	reason, message string
	// owns says that the Topic has its pattern, also while its settings are wrong:
	// what is mended must not lose it to a younger one meanwhile.
	owns bool
	// rivals are the Topics that were refused because of this one.
	rivals few
	// entry is what nodes' settings have of it; nil: nothing.
	entry *config.Topic
	// lastGood says that the entry is an earlier one, as the newest is wrong.
	lastGood bool
}

// refuse says why the hub does not take the Topic as it is.
func (c *claim) refuse(reason, format string, args ...any) {
	c.reason, c.message = reason, fmt.Sprintf(format, args...)
}

// topicName is how a Topic is named in what others read.
func topicName(t *switchboardv1alpha1.Topic) string { return t.Namespace + "/" + t.Name }

// claimsOf decides which Topics have their pattern: those of allowed namespaces that
// overlap neither a pattern of the Hub's own nor an older Topic that has its own.
// A Topic that is being deleted counts until it is gone. It returns all, the oldest
// first.
//
// Each is looked up in an index of those before, so that thousands of Topics take
// milliseconds, unless most of them overlap.
func claimsOf(hub *switchboardv1alpha1.Hub, topics []switchboardv1alpha1.Topic) []*claim {
	claims := make([]*claim, len(topics))
	for i := range topics {
		claims[i] = &claim{topic: &topics[i], pattern: manifests.TopicPattern(hub, &topics[i])}
	}
	slices.SortFunc(claims, func(a, b *claim) int {
		return cmp.Or(
			a.topic.CreationTimestamp.Compare(b.topic.CreationTimestamp.Time),
			cmp.Compare(a.topic.Namespace, b.topic.Namespace),
			cmp.Compare(a.topic.Name, b.topic.Name),
		)
	})
	own, taken := topic.NewIndex[int](), topic.NewIndex[*claim]()
	for i := range hub.Spec.Topics {
		own.Add(string(hub.Spec.Topics[i].Pattern), i)
	}
	for i, c := range claims {
		c.age = i
		pattern := c.pattern
		if !allowsTopicsOf(hub, c.topic.Namespace) {
			c.refuse(switchboardv1alpha1.ReasonNamespaceNotAllowed, "Hub %s/%s takes no Topics of namespace %s: its spec.allowedTopicNamespaces must name it", hub.Namespace, hub.Name, c.topic.Namespace)
			continue
		}
		if err := topic.CheckPattern(pattern); err != nil { // the API server refuses most of these
			c.refuse(switchboardv1alpha1.ReasonInvalidSpec, "%v", err)
			continue
		}
		first := len(hub.Spec.Topics)
		own.Overlap(pattern, func(i int) { first = min(first, i) })
		var oldest *claim
		taken.Overlap(pattern, func(other *claim) {
			other.rivals.add(fmt.Sprintf("%s (%s)", topicName(c.topic), pattern))
			if oldest == nil || other.age < oldest.age {
				oldest = other
			}
		})
		switch {
		case first < len(hub.Spec.Topics):
			c.refuse(switchboardv1alpha1.ReasonConflict, "%q overlaps %q, which is spec.topics[%d] of Hub %s/%s", pattern, hub.Spec.Topics[first].Pattern, first, hub.Namespace, hub.Name)
		case oldest != nil:
			c.refuse(switchboardv1alpha1.ReasonConflict, "%q overlaps %q of Topic %s, which is older", pattern, oldest.pattern, topicName(oldest.topic))
		default:
			c.owns = true
			taken.Add(pattern, c)
		}
	}
	return claims
}

func allowsTopicsOf(hub *switchboardv1alpha1.Hub, namespace string) bool {
	return namespace == hub.Namespace ||
		slices.Contains(hub.Spec.AllowedTopicNamespaces, namespace) || slices.Contains(hub.Spec.AllowedTopicNamespaces, everyNamespace)
}

// fill gives the claims that have their pattern their entries. Of a Topic whose
// settings are wrong the entry of before stays, which earlier finds: a mistake in a
// filter must not open a topic to everything, or end its history.
func fill(claims []*claim, earlier func(*claim) *config.Topic) {
	for _, c := range claims {
		if !c.owns {
			continue
		}
		entry := manifests.TopicConfig(c.pattern, c.topic.Spec.TopicSettings)
		err := entry.Validate()
		if err == nil {
			c.entry = &entry
			continue
		}
		c.refuse(switchboardv1alpha1.ReasonInvalidFilter, "spec.%v", err)
		if c.entry = earlier(c); c.entry != nil {
			c.lastGood = true
			c.message += "; the hub goes on with the last good settings of this Topic"
		}
	}
}

// settingsBytes bounds the nodes' settings: a ConfigMap takes a mebibyte.
const settingsBytes = 1<<20 - 16<<10

// withTopics renders a Hub's settings with the Topics that the hub takes. The
// youngest are refused when there is no room for all.
func withTopics(base config.Config, claims []*claim) ([]byte, error) {
	var filled []*claim
	for _, c := range claims {
		if c.entry != nil {
			filled = append(filled, c)
		}
	}
	render := func(n int) ([]byte, error) {
		with := base
		with.Topics = slices.Clip(base.Topics)
		for _, c := range filled[:n] {
			with.Topics = append(with.Topics, *c.entry)
		}
		return with.Marshal()
	}
	fits := min(len(filled), config.MaxTopics-len(base.Topics))
	rendered, err := render(fits)
	if err == nil && len(rendered) > settingsBytes && fits > 0 {
		fits = largest(fits, func(n int) bool {
			rendered, err = render(n)
			return err == nil && len(rendered) <= settingsBytes
		})
		rendered, err = render(fits)
	}
	if err != nil {
		return nil, err
	}
	for _, c := range filled[fits:] {
		c.entry, c.lastGood = nil, false
		c.refuse(switchboardv1alpha1.ReasonNoRoom, "the hub's settings have no room for it beside older Topics: they take %d bytes and %d patterns", settingsBytes, config.MaxTopics)
	}
	return rendered, nil
}

// largest returns the largest n below bound that is good, 0 when none is; those
// below a good one are good.
func largest(bound int, good func(int) bool) int {
	low, high := 0, bound // high is not good
	for low+1 < high {
		if n := (low + high) / 2; good(n) {
			low = n
		} else {
			high = n
		}
	}
	return low
}

// claimOn returns the claim of a Topic.
func claimOn(claims []*claim, key client.ObjectKey) *claim {
	i := slices.IndexFunc(claims, func(c *claim) bool { return client.ObjectKeyFromObject(c.topic) == key })
	if i < 0 {
		return nil
	}
	return claims[i]
}
