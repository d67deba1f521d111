package hubctl

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/switchboardhub/switchboard/client"
	"github.com/switchboardhub/switchboard/hubnode/topic"
	"github.com/switchboardhub/switchboard/wire"
)

// toHub makes commands, and those below them, check how they reach the hub before they do
// anything: what can't be is wrong usage. Others don't mind what the environment says of that.
func (a *App) toHub(cmds ...*cobra.Command) []*cobra.Command {
	for _, cmd := range cmds {
		cmd.PersistentPreRunE = a.checkReach
	}
	return cmds
}

func (a *App) checkReach(cmd *cobra.Command, args []string) error {
	if err := a.checkGlobals(cmd, args); err != nil {
		return err
	}
	if cmd.Flag("server") != nil { // the plugin names no hub by its address
		if err := client.CheckAddresses(a.server); err != nil {
			return Usagef(cmd, "%s: %w", givenBy(cmd, "server"), err)
		}
	}
	if a.id != "" {
		if err := wire.CheckClientID(a.id); err != nil {
			return Usagef(cmd, "%s: %w", givenBy(cmd, "id"), uncoded(err))
		}
	}
	switch {
	case a.certFile != "" && a.keyFile == "":
		return Usagef(cmd, "%s needs the key of the certificate too: name its file with --key-file", givenBy(cmd, "cert-file"))
	case a.keyFile != "" && a.certFile == "":
		return Usagef(cmd, "%s is the key of a certificate: name its file with --cert-file", givenBy(cmd, "key-file"))
	}
	return nil
}

// givenBy says where the value of a flag is from that the environment may set too.
func givenBy(cmd *cobra.Command, flag string) string {
	if cmd.Flag(flag).Changed {
		return "--" + flag
	}
	return "SWITCHBOARD_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// checkTopic returns an error of usage unless name is that of a topic.
func checkTopic(cmd *cobra.Command, name string) error { return checkOne(cmd, name, topic.CheckName) }

// checkPublish returns an error of usage unless name is that of a topic that clients may
// publish to.
func checkPublish(cmd *cobra.Command, name string) error {
	return checkOne(cmd, name, topic.CheckPublish)
}

func checkOne(cmd *cobra.Command, name string, check func(string) error) error {
	if topic.CheckPattern(name) == nil && !topic.IsLiteral(name) {
		return Usagef(cmd, "%q is a pattern, of many topics: name one", name)
	}
	return checked(cmd, name, check)
}

// checkPattern returns an error of usage unless pattern is a topic's name or a pattern.
func checkPattern(cmd *cobra.Command, pattern string) error {
	return checked(cmd, pattern, topic.CheckPattern)
}

// checkTarget returns an error of usage unless a client can have that id.
func checkTarget(cmd *cobra.Command, id wire.ClientID) error {
	return checked(cmd, id, wire.CheckClientID)
}

func checked(cmd *cobra.Command, what string, check func(string) error) error {
	if err := check(what); err != nil {
		return Usagef(cmd, "%w", uncoded(err))
	}
	return nil
}

// uncoded is an error without the code that it has on the wire, where it has not been.
func uncoded(err error) error {
	if coded, ok := errors.AsType[*wire.Error](err); ok {
		return errors.New(coded.Detail)
	}
	return err
}
