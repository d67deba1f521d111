// Command kubectl-hub is kubectl's plugin: it looks after Hubs of a Kubernetes cluster.
// It is a program of its own so that hubctl need not bring Kubernetes' libraries.
package main

import (
	"os"

	"github.com/switchboardhub/switchboard/internal/hubctl"
	"github.com/switchboardhub/switchboard/internal/kubectlhub"
)

// version is set by the linker; without it the build information says.
var version = "dev"

func main() { os.Exit(kubectlhub.Main(hubctl.ProgramVersion(version))) }
