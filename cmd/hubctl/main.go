// Command hubctl talks to a Switchboard hub from a terminal or a script, and
// starts one on loopback.
package main

import (
	"os"
	"runtime/debug"

	"github.com/switchboardhub/switchboard/internal/hubctl"
)

// version is set by the linker; without it the build information says.
var version = "dev"

func main() { os.Exit(hubctl.Main(programVersion())) }

func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && version == "dev" && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return version
}
