// Command image writes a container image without a container engine and
// without a network: an archive in the layout of docker save, which containerd,
// docker and kind load.
//
// The image holds the given static programs in its root folder, the user they run
// as, the CA certificates of a file if one is given, and nothing else: no shell, no
// /tmp, no time zones. The same input gives the same archive, byte for byte.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

func main() {
	if err := run(os.Args[1:], os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "image:", err)
		}
		os.Exit(2)
	}
}

func run(args []string, errOut io.Writer) error {
	fs := flag.NewFlagSet("image", flag.ContinueOnError)
	fs.SetOutput(errOut)
	name := fs.String("name", "switchboard:dev", "name and tag of the image")
	out := fs.String("out", "", "archive to write")
	arch := fs.String("arch", runtime.GOARCH, "architecture the programs were built for")
	ca := fs.String("ca", "", "file of CA certificates to put into the image; empty: none")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *out == "" || fs.NArg() == 0 {
		return errors.New("needed: -out ARCHIVE.tar and at least one program")
	}

	programs := make([]program, 0, fs.NArg())
	for _, path := range fs.Args() {
		data, err := os.ReadFile(path) //nolint:gosec // which files to read is the caller's say
		if err != nil {
			return err
		}
		programs = append(programs, program{name: filepath.Base(path), data: data})
	}
	var authorities []byte
	if *ca != "" {
		var err error
		if authorities, err = os.ReadFile(*ca); err != nil {
			return err
		}
	}
	return writeFile(*out, func(w io.Writer) error {
		return writeArchive(w, *name, *arch, programs, authorities)
	})
}

// writeFile writes path aside and moves it into place, so that nobody loads
// half an archive.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // nothing is there after the move
	if err := write(f); err != nil {
		_ = f.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil { // a temporary file is its owner's alone
		return err
	}
	return os.Rename(f.Name(), path)
}
