package hubctl

import (
	"bufio"
	"bytes"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/wire"
)

func TestPresencePrinter(t *testing.T) {
	at := func(count uint64) client.PresenceRevision {
		return client.PresenceRevision{Node: "dev-0", Incarnation: "1f", Count: count}
	}
	updates := []client.PresenceUpdate{
		{Revision: at(4), Clients: []client.PresentClient{{ID: "a", Node: "dev-0", Epoch: 1}, {ID: "me", Node: "dev-0", Epoch: 1}}},
		{Revision: at(7), Events: []client.PresenceEvent{
			{Kind: wire.PresenceJoined, Client: "b", Node: "dev-1", Epoch: 1},
			{Kind: wire.PresenceMoved, Client: "a", Node: "dev-1", From: "dev-0", Epoch: 2},
			{Kind: wire.PresenceLeft, Client: "b", Node: "dev-1", Epoch: 1, Reason: wire.LeaveNodeDied},
		}},
		{Revision: at(9), CaughtUp: true, Events: []client.PresenceEvent{
			{Kind: wire.PresenceJoined, Client: "c", Node: "dev-1", Epoch: 1},
			{Kind: wire.PresenceJoined, Client: "d\x1b", Node: "dev-1", Epoch: 1},
		}},
	}
	for name, tt := range map[string]struct {
		asJSON bool
		want   string
	}{
		"text": {false, `TIME   a  dev-0
TIME + b  dev-1
TIME → a  dev-0 → dev-1
TIME - b  dev-1  node_died
TIME + c  dev-1
TIME + "d\x1b"  dev-1
`},
		"JSON": {true, `{"time":"TIME","kind":"present","client":"a","node":"dev-0","epoch":1,"observer":"dev-0","incarnation":"1f","revision":4}
{"time":"TIME","kind":"joined","client":"b","node":"dev-1","epoch":1,"observer":"dev-0","incarnation":"1f","revision":5}
{"time":"TIME","kind":"moved","client":"a","node":"dev-1","from":"dev-0","epoch":2,"observer":"dev-0","incarnation":"1f","revision":6}
{"time":"TIME","kind":"left","client":"b","node":"dev-1","epoch":1,"reason":"node_died","observer":"dev-0","incarnation":"1f","revision":7}
{"time":"TIME","kind":"joined","client":"c","node":"dev-1","epoch":1,"observer":"dev-0","incarnation":"1f","revision":9}
{"time":"TIME","kind":"joined","client":"d\u001b","node":"dev-1","epoch":1,"observer":"dev-0","incarnation":"1f","revision":9}
`},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			p := presencePrinter{out: bufio.NewWriter(&out), asJSON: tt.asJSON, self: "me"}
			for _, u := range updates {
				if err := p.print(u); err != nil {
					t.Fatal(err)
				}
			}
			got := regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{3}|"\d{4}-[^"]*Z"`).ReplaceAllStringFunc(out.String(), func(at string) string {
				if at[0] == '"' {
					return `"TIME"`
				}
				return "TIME"
			})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("printed (-want +got):\n%s", diff)
			}
		})
	}
}
