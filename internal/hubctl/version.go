package hubctl

import "runtime/debug"

// ProgramVersion returns the version that the linker has set or, without one, that of
// the module which go install has built.
func ProgramVersion(linked string) string {
	if info, ok := debug.ReadBuildInfo(); ok && linked == "dev" && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return linked
}
