package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"sort"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// File is one entry of an image's file system.
type File struct {
	// Path is absolute, as seen in the container. Missing parents are made,
	// root's, with mode 0755.
	Path string
	// Mode holds the permission bits (with setuid, setgid and sticky as in
	// os.FileMode). Zero means 0644 for a file and 0755 for a directory.
	Mode os.FileMode
	// Data is a regular file's content. It is not used when Link or Dir is set.
	Data []byte
	// Link makes the entry a symbolic link to this target.
	Link string
	// Dir makes the entry a directory.
	Dir bool
	// UID and GID own the entry; zero is root.
	UID, GID int
}

// Spec describes an image of one layer.
type Spec struct {
	// Files are the image's content, in any order. Two entries of one path
	// are an error.
	Files []File
	// Entrypoint, Cmd, Env, User and WorkingDir mean what they mean in a
	// container image's configuration.
	Entrypoint []string
	Cmd        []string
	Env        []string
	User       string
	WorkingDir string
	// Arch is a GOARCH; empty means this machine's.
	Arch string
}

// Build makes an image of one uncompressed layer. The digest depends on
// nothing but the Spec.
func Build(spec Spec) (v1.Image, error) {
	layer, err := layerTar(spec.Files)
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{
		Layer: static.NewLayer(layer, types.OCIUncompressedLayer),
	})
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	cf = cf.DeepCopy()
	cf.OS = "linux"
	cf.Architecture = spec.Arch
	if cf.Architecture == "" {
		cf.Architecture = runtime.GOARCH
	}
	cf.Config = v1.Config{
		Entrypoint: spec.Entrypoint,
		Cmd:        spec.Cmd,
		Env:        spec.Env,
		User:       spec.User,
		WorkingDir: spec.WorkingDir,
	}
	img, err = mutate.ConfigFile(img, cf)
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	return img, nil
}

// layerTar writes files as a tar stream in path order, parents first.
func layerTar(files []File) ([]byte, error) {
	entries, err := withParents(files)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, f := range entries {
		if err := writeEntry(tw, f); err != nil {
			return nil, fmt.Errorf("layer entry %s: %w", f.Path, err)
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// withParents cleans the paths, adds the directories that no entry names, and
// sorts the result.
func withParents(files []File) ([]File, error) {
	byPath := make(map[string]File, len(files))
	for _, f := range files {
		if !strings.HasPrefix(f.Path, "/") {
			return nil, fmt.Errorf("file path %q must be absolute", f.Path)
		}
		f.Path = path.Clean(f.Path)
		if f.Path == "/" {
			return nil, errors.New("an image's root directory cannot be an entry")
		}
		if _, twice := byPath[f.Path]; twice {
			return nil, fmt.Errorf("file path %s is listed twice", f.Path)
		}
		byPath[f.Path] = f
	}
	for _, f := range files {
		for dir := path.Dir(path.Clean(f.Path)); dir != "/"; dir = path.Dir(dir) {
			parent, ok := byPath[dir]
			if ok && !parent.Dir {
				return nil, fmt.Errorf("file path %s lies below %s, which is not a directory", f.Path, dir)
			}
			if !ok {
				byPath[dir] = File{Path: dir, Dir: true}
			}
		}
	}
	entries := make([]File, 0, len(byPath))
	for _, f := range byPath {
		entries = append(entries, f)
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Path < entries[j].Path })
	return entries, nil
}

func writeEntry(tw *tar.Writer, f File) error {
	h := &tar.Header{
		Name:   strings.TrimPrefix(f.Path, "/"),
		Mode:   tarMode(f),
		Uid:    f.UID,
		Gid:    f.GID,
		Format: tar.FormatPAX,
	}
	switch {
	case f.Dir:
		h.Typeflag = tar.TypeDir
		h.Name += "/"
	case f.Link != "":
		h.Typeflag = tar.TypeSymlink
		h.Linkname = f.Link
	default:
		h.Typeflag = tar.TypeReg
		h.Size = int64(len(f.Data))
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	_, err := io.Copy(tw, bytes.NewReader(f.Data))
	return err
}

// tarMode turns Go's mode bits into a tar header's, with the defaults of File.
func tarMode(f File) int64 {
	if f.Link != "" {
		return 0o777
	}
	perm := int64(f.Mode.Perm())
	if perm == 0 && f.Dir {
		perm = 0o755
	}
	if perm == 0 {
		perm = 0o644
	}
	if f.Mode&os.ModeSetuid != 0 {
		perm |= 0o4000
	}
	if f.Mode&os.ModeSetgid != 0 {
		perm |= 0o2000
	}
	if f.Mode&os.ModeSticky != 0 {
		perm |= 0o1000
	}
	return perm
}
