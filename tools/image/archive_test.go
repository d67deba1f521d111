package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestArchiveHoldsProgramsThatAnyoneMayRunAndNoOneMayChange(t *testing.T) {
	programs := []program{{"operator", []byte("one")}, {"hubctl", []byte("two")}}
	var archive bytes.Buffer
	if err := writeArchive(&archive, "switchboard:dev", "amd64", programs, nil); err != nil {
		t.Fatal(err)
	}
	outer := readTar(t, archive.Bytes())

	var images []manifest
	if err := json.Unmarshal(outer["manifest.json"].data, &images); err != nil {
		t.Fatal(err)
	}
	if len(images) != 1 || !slices.Equal(images[0].RepoTags, []string{"switchboard:dev"}) {
		t.Fatalf("got images %+v, want switchboard:dev alone", images)
	}
	var conf config
	if err := json.Unmarshal(outer[images[0].Config].data, &conf); err != nil {
		t.Fatal(err)
	}
	if conf.Config.User != "65532:65532" || conf.OS != "linux" || conf.Architecture != "amd64" {
		t.Errorf("got configuration %+v, want user 65532:65532 on linux/amd64", conf)
	}
	layer := outer[images[0].Layers[0]].data
	if got, want := conf.RootFS.DiffIDs, []string{"sha256:" + sum(layer)}; !slices.Equal(got, want) {
		t.Errorf("got layer digests %v, want %v", got, want)
	}

	files := readTar(t, layer)
	want := []string{"etc/", "etc/group", "etc/passwd", "hubctl", "operator"}
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
		t.Errorf("got files %v, want %v", got, want)
	}
	for _, p := range programs {
		if got := files[p.name]; got.mode != 0o755 || !bytes.Equal(got.data, p.data) {
			t.Errorf("%s: got mode %o with %q, want 755 with %q", p.name, got.mode, got.data, p.data)
		}
	}
}

func TestArchiveIsTheSameForTheSamePrograms(t *testing.T) {
	var first, second bytes.Buffer
	for _, w := range []io.Writer{&first, &second} {
		if err := writeArchive(w, "switchboard:dev", "amd64", []program{{"hubctl", []byte("two")}}, []byte("authorities")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of the same programs differ")
	}
}

func TestArchiveRefusesANameWithoutATag(t *testing.T) {
	for _, name := range []string{"switchboard", "localhost:5000/switchboard"} {
		if err := writeArchive(io.Discard, name, "amd64", nil, nil); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestAuthoritiesAreWhereGoLooksForThem(t *testing.T) {
	dir := t.TempDir()
	out, prog, authorities := filepath.Join(dir, "image.tar"), filepath.Join(dir, "hubctl"), filepath.Join(dir, "ca.pem")
	for path, text := range map[string]string{prog: "program", authorities: "authorities"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := run([]string{"-out", out, "-arch", "arm64", "-ca", authorities, prog}, io.Discard); err != nil {
		t.Fatal(err)
	}
	archive, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	outer := readTar(t, archive)
	var images []manifest
	if err := json.Unmarshal(outer["manifest.json"].data, &images); err != nil {
		t.Fatal(err)
	}
	var conf config
	if err := json.Unmarshal(outer[images[0].Config].data, &conf); err != nil {
		t.Fatal(err)
	}
	if conf.Architecture != "arm64" {
		t.Errorf("got architecture %s, want arm64", conf.Architecture)
	}
	files := readTar(t, outer[images[0].Layers[0]].data)
	if got := files["etc/ssl/certs/ca-certificates.crt"]; string(got.data) != "authorities" || got.mode != 0o644 {
		t.Errorf("got the authorities %q of mode %o, want those given, for everybody to read", got.data, got.mode)
	}
}

func TestFailedRunLeavesTheOldArchive(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "image.tar")
	if err := os.WriteFile(out, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	prog := filepath.Join(dir, "hubctl")
	if err := os.WriteFile(prog, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{"-out", out, "-name", "untagged", prog}, io.Discard); err == nil {
		t.Fatal("got no error")
	}
	if got, err := os.ReadFile(out); err != nil || string(got) != "old" {
		t.Errorf("got %q, %v, want the old archive", got, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".image*")); err != nil || len(left) > 0 {
		t.Errorf("left %v behind (%v)", left, err)
	}
}

func readTar(t *testing.T, data []byte) map[string]file {
	t.Helper()
	files := map[string]file{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = file{name: h.Name, mode: h.Mode, data: body}
	}
}
