package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// user is who the image's programs run as. The number is what the Dockerfile's
// base calls nonroot; Kubernetes checks a number, not a name.
const user = "65532:65532"

// epoch stands in every place of the image that holds a time.
const epoch = "1970-01-01T00:00:00Z"

// program is one static executable, which lands in the image's root folder.
type program struct {
	name string
	data []byte
}

// file is an entry of a tar archive; a folder when its name ends in a slash.
type file struct {
	name string
	mode int64
	data []byte
}

// config is the part of an OCI image configuration that is used here. There is
// no entrypoint: the image holds three programs, and a pod says which it runs.
type config struct {
	Architecture string        `json:"architecture"`
	OS           string        `json:"os"`
	Created      string        `json:"created"`
	Config       runConfig     `json:"config"`
	RootFS       rootFS        `json:"rootfs"`
	History      []historyItem `json:"history"`
}

type runConfig struct {
	User       string   `json:"User"`
	Env        []string `json:"Env"`
	WorkingDir string   `json:"WorkingDir"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type historyItem struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
}

// manifest is one image of the archive; the list of them is manifest.json.
type manifest struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// writeArchive writes an image of one layer with programs in its root folder, and with
// authorities, if there are any, where Go looks for those of the system.
// A name without a tag is refused: it would mean the tag latest, which makes
// Kubernetes pull.
func writeArchive(w io.Writer, name, arch string, programs []program, authorities []byte) error {
	if !strings.Contains(name[strings.LastIndex(name, "/")+1:], ":") {
		return fmt.Errorf("image name %q has no tag", name)
	}

	entries := []file{
		{name: "etc/", mode: 0o755},
		{name: "etc/passwd", mode: 0o644, data: []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")},
		{name: "etc/group", mode: 0o644, data: []byte("root:x:0:\nnonroot:x:65532:\n")},
	}
	if len(authorities) > 0 {
		entries = append(entries,
			file{name: "etc/ssl/", mode: 0o755},
			file{name: "etc/ssl/certs/", mode: 0o755},
			file{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, data: authorities})
	}
	for _, p := range programs {
		entries = append(entries, file{name: p.name, mode: 0o755, data: p.data})
	}
	var layer bytes.Buffer
	if err := writeTar(&layer, entries); err != nil {
		return err
	}
	layerSum := sum(layer.Bytes())

	conf, err := json.Marshal(config{
		Architecture: arch,
		OS:           "linux",
		Created:      epoch,
		Config:       runConfig{User: user, Env: []string{"PATH=/"}, WorkingDir: "/"},
		RootFS:       rootFS{Type: "layers", DiffIDs: []string{"sha256:" + layerSum}},
		History:      []historyItem{{Created: epoch, CreatedBy: "make image-archive"}},
	})
	if err != nil {
		return err
	}
	confName, layerName := sum(conf)+".json", layerSum+"/layer.tar"
	index, err := json.Marshal([]manifest{{Config: confName, RepoTags: []string{name}, Layers: []string{layerName}}})
	if err != nil {
		return err
	}
	return writeTar(w, []file{
		{name: confName, mode: 0o644, data: conf},
		{name: layerName, mode: 0o644, data: layer.Bytes()},
		{name: "manifest.json", mode: 0o644, data: index},
	})
}

func writeTar(w io.Writer, entries []file) error {
	tw := tar.NewWriter(w)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Mode: e.mode, Size: int64(len(e.data))}
		if strings.HasSuffix(e.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(e.data); err != nil {
			return err
		}
	}
	return tw.Close()
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
