// Command hubctl talks to a Switchboard hub from a terminal or a script, and
// starts one on loopback.
package main

import (
	"os"

	"github.com/switchboardhub/switchboard/internal/hubctl"
)

// version is set by the linker; without it the build information says.
var version = "dev"

func main() { os.Exit(hubctl.Main(hubctl.ProgramVersion(version))) }
