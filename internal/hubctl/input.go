package hubctl

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/wire"
)

// content is what the flags of pub, send and request say of an artifact.
type content struct {
	attributes  []string
	contentType string
}

func (c *content) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&c.attributes, "attribute", "a", nil, "`KEY=VALUE` to go with it; may be given often")
	cmd.Flags().StringVar(&c.contentType, "content-type", "", "media `type` of the data, such as application/json")
}

// artifact returns the artifact that flags and arguments describe; data is the
// optional argument: the payload, or "-" for the standard input.
func (c *content) artifact(cmd *cobra.Command, in io.Reader, data []string) (*wire.Artifact, error) {
	a := &wire.Artifact{ContentType: c.contentType}
	for _, pair := range c.attributes {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, Usagef(cmd, "attribute %q: want KEY=VALUE", pair)
		}
		if a.Attributes == nil {
			a.Attributes = make(map[string]string)
		}
		a.Attributes[key] = value
	}
	switch {
	case len(data) == 0:
	case data[0] == "-":
		payload, err := io.ReadAll(in)
		if err != nil {
			return nil, fmt.Errorf("read the standard input: %w", err)
		}
		a.Payload = payload
	default:
		a.Payload = []byte(data[0])
	}
	return a, nil
}
