package hubctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/config"
	"github.com/switchboardhub/switchboard/wire"
)

func TestArtifactOutput(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.FixedZone("elsewhere", 3600))
	for name, test := range map[string]struct {
		a          wire.Artifact
		text, json string
	}{
		"on a topic with history": {
			wire.Artifact{ID: wire.ID{15: 1}, From: "agent-7", Topic: "orders.new", Sequence: 12, Time: at, ContentType: "application/json", Attributes: map[string]string{"b": "2", "a": "1"}, Payload: []byte(`{"x":"<1>"}`)},
			`#12 orders.new from agent-7 [a=1 b=2]: {"x":"<1>"}`,
			`{"id":"00000000000000000000000000000001","from":"agent-7","topic":"orders.new","sequence":12,"time":"2026-01-02T02:04:05.0000006Z","contentType":"application/json","attributes":{"a":"1","b":"2"},"payload":"{\"x\":\"<1>\"}"}`,
		},
		"sent directly, empty": {
			wire.Artifact{From: "a", To: "b", Time: at},
			`from a: `,
			`{"id":"00000000000000000000000000000000","from":"a","to":"b","time":"2026-01-02T02:04:05.0000006Z","payload":""}`,
		},
		"no text": {
			wire.Artifact{From: "a", Topic: "t", Time: at, Payload: []byte{0xff, 1}},
			`t from a: 2 bytes: ff01`,
			`{"id":"00000000000000000000000000000000","from":"a","topic":"t","time":"2026-01-02T02:04:05.0000006Z","payloadBase64":"/wE="}`,
		},
		"what would upset a terminal": {
			wire.Artifact{Topic: "t", Time: at, Payload: []byte("\x1b[2J")},
			`t from the hub: "\x1b[2J"`,
			`{"id":"00000000000000000000000000000000","from":"","topic":"t","time":"2026-01-02T02:04:05.0000006Z","payload":"\u001b[2J"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var text, line bytes.Buffer
			appendText(&text, &test.a)
			if err := appendJSON(&line, &test.a); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.text+"\n"+test.json+"\n", text.String()+line.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLongBinaryPayloadIsCutShort(t *testing.T) {
	text := readable(append([]byte{0xff}, make([]byte, 99)...))
	if want := "100 bytes: ff" + strings.Repeat("00", 31) + "…"; text != want {
		t.Errorf("readable = %s, want %s", text, want)
	}
}

func TestPrinterStopsAtItsCount(t *testing.T) {
	var out bytes.Buffer
	p := (&App{Out: &out}).newPrinter(2)
	for i := range 5 {
		p.print(&wire.Artifact{From: "a", Payload: fmt.Append(nil, i)})
	}
	<-p.done
	if want := "from a: 0\nfrom a: 1\n"; out.String() != want || p.failure() != nil {
		t.Errorf("printed %q, want %q", &out, want)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errNobodyReads }

var errNobodyReads error = &fs.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.EPIPE}

func TestPrinterStopsWhenNobodyReads(t *testing.T) {
	p := (&App{Out: brokenPipe{}}).newPrinter(0)
	p.print(&wire.Artifact{})
	<-p.done
	if status, tell := exitStatus(t.Context(), p.failure()); status != exitDone || tell {
		t.Errorf("exit status %d, told %v, want a quiet 0", status, tell)
	}
}

func TestExitStatus(t *testing.T) {
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx    context.Context //nolint:containedctx // a table
		err    error
		status int
		tell   bool
	}{
		"done":            {t.Context(), nil, 0, false},
		"failed":          {t.Context(), errors.New("x"), 1, true},
		"usage":           {t.Context(), &usageError{command: "x", err: errors.New("x")}, 2, true},
		"no client":       {t.Context(), &noClientError{cause: &client.NoClientError{ID: "b"}}, 3, true},
		"timeout":         {t.Context(), fmt.Errorf("x: %w", context.DeadlineExceeded), 4, true},
		"dial timeout":    {t.Context(), &client.UnreachableError{Attempts: []client.Attempt{{Err: os.ErrDeadlineExceeded}}}, 4, true},
		"interrupted":     {interrupted, context.Canceled, 1, false},
		"nobody listens":  {t.Context(), &client.UnreachableError{Attempts: []client.Attempt{{Err: syscall.ECONNREFUSED}}}, 1, true},
		"nobody reads us": {t.Context(), errNobodyReads, 0, false},
		"nobody reads us, and there is more to do": {t.Context(), unreadFails(errNobodyReads), 1, true},
		"a connection breaks":                      {t.Context(), &client.UnreachableError{Attempts: []client.Attempt{{Err: os.NewSyscallError("write", syscall.EPIPE)}}}, 1, true},
	} {
		if status, tell := exitStatus(test.ctx, test.err); status != test.status || tell != test.tell {
			t.Errorf("%s: exitStatus = %d, %v, want %d, %v", name, status, tell, test.status, test.tell)
		}
	}
}

func TestNoClientErrorSaysWhoThereIs(t *testing.T) {
	for others, want := range map[int]string{
		-1: `no client "b" in the hub; see who is connected: hubctl clients`,
		0:  `no client "b" in the hub; no other client is connected`,
		1:  `no client "b" in the hub; 1 client is connected: hubctl clients`,
		3:  `no client "b" in the hub; 3 clients are connected: hubctl clients`,
	} {
		if text := (&noClientError{cause: &client.NoClientError{ID: "b"}, others: others}).Error(); text != want {
			t.Errorf("got %s, want %s", text, want)
		}
	}
}

func TestMadeUpIDsAreValidAndDiffer(t *testing.T) {
	a, b := madeUpID(), madeUpID()
	if a == b || wire.CheckClientID(a) != nil || !strings.HasPrefix(a, "hubctl-") {
		t.Errorf("made up %q and %q", a, b)
	}
}

func TestAttributeVariable(t *testing.T) {
	for key, want := range map[string]string{"tenant": "SWITCHBOARD_ATTR_TENANT", "the.key-9": "SWITCHBOARD_ATTR_THE_KEY_9", "ü=": "SWITCHBOARD_ATTR___"} {
		if have := attributeVariable(key); have != want {
			t.Errorf("attributeVariable(%q) = %s, want %s", key, have, want)
		}
	}
}

func TestEachLine(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	for name, test := range map[string]struct {
		in   string
		want []string
	}{
		"nothing":         {"", nil},
		"whole lines":     {"a\n\nb\n", []string{"a", "", "b"}},
		"no end":          {"a\nb", []string{"a", "b"}},
		"only an end":     {"\n", []string{""}},
		"longer than any": {long + "\nb\n" + long, []string{long, "b", long}},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			err := (&App{In: strings.NewReader(test.in)}).eachLine(func(b []byte) error {
				lines = append(lines, string(b))
				return nil
			})
			if diff := cmp.Diff(test.want, lines); diff != "" || err != nil {
				t.Errorf("%v, lines (-want +got):\n%s", err, diff)
			}
		})
	}
	broken := errors.New("broken")
	if err := (&App{In: iotest.ErrReader(broken)}).eachLine(nil); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestPercentilesAreRightToThreePercent(t *testing.T) {
	var a, b histogram
	if a.percentile(50) != 0 {
		t.Errorf("percentile of nothing is %v", a.percentile(50))
	}
	for i := 1; i <= 100_000; i++ {
		h := &a
		if i%2 == 0 {
			h = &b
		}
		h.add(time.Duration(i) * time.Microsecond)
	}
	a.merge(&b)
	for p, want := range map[float64]time.Duration{50: 50 * time.Millisecond, 90: 90 * time.Millisecond, 99: 99 * time.Millisecond, 100: 100 * time.Millisecond} {
		if got := a.percentile(p); got < want || got > want+want*3/100 && p < 100 {
			t.Errorf("p%v = %v, want %v", p, got, want)
		}
	}
	if a.max != 100*time.Millisecond || a.percentile(100) != a.max {
		t.Errorf("max = %v, p100 = %v", a.max, a.percentile(100))
	}
	for _, d := range []time.Duration{0, 1, 31, 32, 63, 64, 65, 1000, 1<<62 - 1, 1<<63 - 1} {
		if i := bucketOf(d); bucketEnd(i) < d || i > 0 && bucketEnd(i-1) >= d {
			t.Errorf("%d is in bucket %d, from after %d to %d", d, i, bucketEnd(max(0, i-1)), bucketEnd(i))
		}
	}
}

func TestTables(t *testing.T) {
	for name, test := range map[string]struct {
		list         list
		answer, want string
	}{
		"clients": {
			clientsList,
			`{"clients":[{"id":"b","node":"dev-1","name":"prog","version":"v2","subscriptions":3,"pendingBytes":4,"roundTripSeconds":0.0015,"droppedArtifacts":5},{"id":"me"}]}`,
			"ID  NODE   ADDRESS  PROGRAM  CONNECTED  SUBSCRIPTIONS  PENDING  ROUND TRIP  DROPPED\n" +
				"b   dev-1  -        prog v2  -          3              4        1.5ms       5\n",
		},
		"topics": {
			topicsList,
			`{"topics":[{"topic":"a.>","subscribers":2},{"topic":"b","history":true,"node":"dev-0","first":3,"last":9,"artifacts":7,"bytes":70}]}`,
			"TOPIC  SUBSCRIBERS  HISTORY  LEADER  SEQUENCES  ARTIFACTS  BYTES  OLDEST  REPLICAS (LAG)\n" +
				"a.>    2            no       -       -          0          0      -       -\n" +
				"b      0            yes      dev-0   3-9        7          70     -       -\n",
		},
		"nodes": {
			nodesList,
			`{"nodes":[{"node":"n-0","state":"active","ready":true,"client":"h:1","http":"http://h:2","clients":3,"version":"v1","uptimeSeconds":61.5,"self":true,"reachable":true},{"node":"n-1","state":"joining","client":"h:3","http":"http://h:4"}]}`,
			"NODE   STATE    READY        CLIENT  HTTP        CLIENTS  DISK  VERSION  UPTIME\n" +
				"n-0 *  active   yes          h:1     http://h:2  3        -     v1       1m1s\n" +
				"n-1    joining  unreachable  h:3     http://h:4  -        -     -        -\n",
		},
		"nodes with disks": {
			nodesList,
			`{"nodes":[{"node":"n-0","reachable":true,"disk":{"freeBytes":25,"sizeBytes":100}},` +
				fmt.Sprintf(`{"node":"n-1","reachable":true,"disk":{"fullSince":%[1]q}},{"node":"n-2","reachable":true,"disk":{"fullSince":%[1]q,"awaySince":%[1]q,"away":"why"}}]}`, time.Now().Add(time.Hour).Format(time.RFC3339)), // by another clock
			"NODE  STATE  READY  CLIENT  HTTP  CLIENTS  DISK               VERSION  UPTIME\n" +
				"n-0          no                   0        25% free           -        0s\n" +
				"n-1          no                   0        full since 0s ago  -        0s\n" +
				"n-2          no                   0        away since 0s ago  -        0s\n",
		},
		"namespaces": {
			namespacesList,
			`{"maxHistoryBytes":1000,"namespaces":[{"namespace":"shop","historyBytes":999},{"namespace":"bank","historyBytes":10}]}`,
			"NAMESPACE  HISTORY BYTES  LIMIT  USED\n" +
				"shop       999            1000   100%\n" +
				"bank       10             1000   1%\n",
		},
		"durables": {
			durablesList,
			`{"durables":[{"topic":"jobs","name":"w","policy":{"shared":true,"filter":"x"},"position":4,"pending":1,"inFlight":2,"redelivered":1,"lost":3,"members":["a","b"]}]}`,
			"TOPIC  NAME  SHARED  POSITION  PENDING  IN FLIGHT  REDELIVERED  LOST  CLIENTS  USED  FILTER\n" +
				"jobs   w     true    4         1        2          1            3     a b      -     x\n",
		},
		"namespaces that nobody counts": {namespacesList, `{"maxHistoryBytes":0,"namespaces":[]}`, "NAMESPACE  HISTORY BYTES  LIMIT  USED\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := test.list.table(&out, []byte(test.answer), "me"); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, out.String()); diff != "" {
				t.Errorf("table (-want +got):\n%s", diff)
			}
			if err := test.list.table(io.Discard, []byte("no JSON"), "me"); err == nil {
				t.Error("an answer that is no JSON was accepted")
			}
		})
	}
}

func TestDevConfigsAreValidAndPointAtEachOther(t *testing.T) {
	dir := t.TempDir()
	nodes, err := planNodes(t.Context(), dir, 3, 0, config.Default().TLS, config.Default().Storage)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for i, n := range nodes {
		cfg, err := config.Load(filepath.Join(dir, fmt.Sprintf("dev-%d.yaml", i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := cfg.Validate(); err != nil {
			t.Error(err)
		}
		if cfg.Node != n.name || cfg.Replicas != 3 || len(cfg.Peers) != 3 || cfg.Peers[i] != cfg.Listen.Gossip || cfg.HistoryFor("any").MaxArtifacts != 10_000 {
			t.Errorf("config of %s: %+v", n.name, cfg)
		}
		for _, address := range []string{cfg.Listen.Client, cfg.Listen.Cluster, cfg.Listen.Gossip, cfg.Listen.HTTP} {
			if seen[address] || !strings.HasPrefix(address, "127.0.0.1:") {
				t.Errorf("%s listens on %s", n.name, address)
			}
			seen[address] = true
		}
	}
}

func TestPortsInUseAreReplaced(t *testing.T) {
	var taken, picker portPicker
	defer taken.release()
	defer picker.release()
	used, err := taken.pick(t.Context(), 0, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	var port int
	if _, err := fmt.Sscanf(used, "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	other, err := picker.pick(t.Context(), port-2, 2, true)
	if err != nil || other == used {
		t.Errorf("picked %s, %v while %s is in use", other, err, used)
	}
	taken.release()
	if again, err := picker.pick(t.Context(), port-2, 2, true); err != nil || again != used {
		t.Errorf("picked %s, %v, want %s, which is free now", again, err, used)
	}
}

func TestReportsHaveAStableShape(t *testing.T) {
	var out bytes.Buffer
	b := &bench{name: "pair", clients: 2, size: 100}
	r := b.report(2 * time.Second)
	r.Messages, r.Lost = 1000, 1
	if err := (&App{Out: &out, output: "json"}).printReport(r); err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(out.Bytes(), &fields); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"bench": "pair", "clients": 2.0, "size": 100.0, "messages": 1000.0, "lost": 1.0,
		"seconds": 2.0, "messagesPerSecond": 500.0, "megabytesPerSecond": 0.05,
	}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	if text := r.text(); !strings.Contains(text, "1 LOST") {
		t.Errorf("text form hides the loss: %s", text)
	}
}

// What others chose is not for them to draw on somebody's terminal.
func TestWhatOthersChoseIsHarmless(t *testing.T) {
	var errOut bytes.Buffer
	(&App{Program: "hubctl", ErrOut: &errOut}).Tellf("client b says: %v", errors.New("\x1b[2Jgone\r"))
	if want := `hubctl: client b says: \x1b[2Jgone\r` + "\n"; errOut.String() != want {
		t.Errorf("told %q, want %q", &errOut, want)
	}
	var rows []string
	err := clientRows([]byte(`{"clients":[{"id":"b","name":"x\nadmin","version":"1"},{"id":"c","name":"worker","version":"2"}]}`), "me", func(cells ...string) { rows = append(rows, cells[3]) })
	if want := []string{`"x\nadmin 1"`, "worker 2"}; err != nil || !slices.Equal(rows, want) {
		t.Errorf("rows %q, %v, want %q", rows, err, want)
	}
	var out bytes.Buffer
	appendText(&out, &wire.Artifact{Topic: "t", From: "b", Sequence: 1, Payload: []byte("x\n#2 t from admin: all is well\n")})
	if want := "#1 t from b: x\n    #2 t from admin: all is well\n"; out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
}

func TestListsThatAreNotWholeSaySo(t *testing.T) {
	whole := `{"topics":[],"shards":[{"shard":0,"leader":"a","replicas":[]}]`
	if text := topicsList.note([]byte(whole + "}")); text != "" {
		t.Errorf("of a whole list it says %q", text)
	}
	if text := topicsList.note([]byte(whole + `,"incomplete":true}`)); !strings.Contains(text, "some topics may be missing") {
		t.Errorf("of one that is not whole it says %q", text)
	}
	for answer, want := range map[string]string{`{"durables":[]}`: "", `{"durables":[],"incomplete":true}`: "a node did not answer, or a shard had no leader: some durable subscriptions may be missing here"} {
		if text := durablesList.note([]byte(answer)); text != want {
			t.Errorf("of %s it says %q, want %q", answer, text, want)
		}
	}
}
