package image

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"sort"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Image is a container image, whatever it is stored in. The name lets other
// packages hold one without importing go-containerregistry.
type Image = v1.Image

// Named is an image with a reference it is known by.
type Named struct {
	// Ref is a full reference: see Reference.
	Ref   string
	Image Image
}

// Limits on archives, which may come from anywhere.
const (
	maxArchiveImages  = 1000
	maxArchiveEntries = 100_000
	// maxIndexBytes bounds each JSON file of an archive.
	maxIndexBytes = 8 << 20
)

// refAnnotations name an image in an OCI layout: containerd's full reference
// first, then the specification's own.
var refAnnotations = []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"}

// Archive is an opened archive. Its images read from it until Close.
type Archive struct {
	// Images in the archive, by reference. An image without any reference is
	// left out.
	Images []Named
	// dir holds the unpacked form of an OCI layout, empty otherwise.
	dir string
}

// Close removes what opening the archive has put aside.
func (a *Archive) Close() error {
	if a.dir == "" {
		return nil
	}
	return os.RemoveAll(a.dir)
}

// Open reads an archive: a "docker save" file, or a tar file of an OCI layout.
func Open(file string) (*Archive, error) {
	kind, err := archiveKind(file)
	if err != nil {
		return nil, fmt.Errorf("open image archive %s: %w", file, err)
	}
	a := &Archive{}
	if kind == "manifest.json" {
		err = a.openDocker(file)
	} else {
		err = a.openLayout(file)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open image archive %s: %w", file, err), a.Close())
	}
	if len(a.Images) == 0 {
		return nil, errors.Join(fmt.Errorf("image archive %s names no image: save it by name and tag, not by identifier", file), a.Close())
	}
	sort.Slice(a.Images, func(i, j int) bool { return a.Images[i].Ref < a.Images[j].Ref })
	return a, nil
}

// archiveKind looks for the file that tells the two formats apart. Newer
// "docker save" files hold both; the older format is complete in them. It also
// refuses archives that would grow when they are read: entries cannot hold
// more than the file does, unless they are sparse.
func archiveKind(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	kind, left := "", st.Size()
	tr := tar.NewReader(f)
	for range maxArchiveEntries {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			if kind == "" {
				return "", errors.New("neither a \"docker save\" file nor an OCI layout: it has no manifest.json and no index.json")
			}
			return kind, nil
		}
		if err != nil {
			return "", fmt.Errorf("not a tar file (is it compressed? unpack it first): %w", err)
		}
		if left -= h.Size; left < 0 || h.Size < 0 {
			return "", errors.New("its entries claim to be larger than the archive itself")
		}
		base := path.Clean(h.Name)
		if strings.HasSuffix(base, ".json") && h.Size > maxIndexBytes {
			return "", fmt.Errorf("%s is larger than %d bytes", base, maxIndexBytes)
		}
		if base == "manifest.json" || base == "index.json" && kind == "" {
			kind = base
		}
	}
	return "", fmt.Errorf("more than %d entries", maxArchiveEntries)
}

func (a *Archive) openDocker(file string) error {
	opener := func() (io.ReadCloser, error) { return os.Open(file) }
	manifest, err := tarball.LoadManifest(opener)
	if err != nil {
		return err
	}
	for _, d := range manifest {
		for _, tag := range d.RepoTags {
			if len(a.Images) == maxArchiveImages {
				return fmt.Errorf("more than %d images", maxArchiveImages)
			}
			full, err := Reference(tag)
			if err != nil {
				return err
			}
			t, err := name.NewTag(tag)
			if err != nil {
				return fmt.Errorf("image reference %q is not valid: %w", tag, err)
			}
			img, err := tarball.Image(opener, &t)
			if err == nil {
				img, err = plain(img)
			}
			if err != nil {
				return fmt.Errorf("image %s: %w", tag, err)
			}
			a.Images = append(a.Images, Named{Ref: full, Image: img})
		}
	}
	return nil
}

func (a *Archive) openLayout(file string) error {
	dir, err := os.MkdirTemp("", "coracle-image-")
	if err != nil {
		return err
	}
	a.dir = dir
	if err := unpackLayout(file, dir); err != nil {
		return err
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, d := range manifest.Manifests {
		ref := ""
		for _, key := range refAnnotations {
			if ref == "" {
				ref = d.Annotations[key]
			}
		}
		if ref == "" {
			continue
		}
		if len(a.Images) == maxArchiveImages {
			return fmt.Errorf("more than %d images", maxArchiveImages)
		}
		full, err := Reference(ref)
		if err != nil {
			return err
		}
		img, err := imageOf(index, d)
		if err != nil {
			return fmt.Errorf("image %s: %w", full, err)
		}
		a.Images = append(a.Images, Named{Ref: full, Image: img})
	}
	return nil
}

// imageOf follows a descriptor to the image for this machine.
func imageOf(index v1.ImageIndex, d v1.Descriptor) (v1.Image, error) {
	if !d.MediaType.IsIndex() {
		return index.Image(d.Digest)
	}
	inner, err := index.ImageIndex(d.Digest)
	if err != nil {
		return nil, err
	}
	manifest, err := inner.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, m := range manifest.Manifests {
		if m.Platform != nil && m.Platform.OS == "linux" && m.Platform.Architecture == runtime.GOARCH {
			return inner.Image(m.Digest)
		}
	}
	return nil, fmt.Errorf("it has no variant for linux/%s", runtime.GOARCH)
}

// unpackLayout writes the files of an OCI layout, and no others, to dir.
func unpackLayout(file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		return err
	}
	tr := tar.NewReader(f)
	for range maxArchiveEntries {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return checkIndex(dir)
		}
		if err != nil {
			return err
		}
		clean := path.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || !layoutFile(clean) {
			continue
		}
		out, err := os.OpenFile(filepath.Join(dir, filepath.FromSlash(clean)), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, tr)
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
	return fmt.Errorf("more than %d entries", maxArchiveEntries)
}

// layoutFile reports whether a cleaned path belongs to an OCI layout. Blobs
// are named by a hash alone, so no path can leave the folder.
func layoutFile(clean string) bool {
	if clean == "index.json" || clean == "oci-layout" {
		return true
	}
	hash, ok := strings.CutPrefix(clean, "blobs/sha256/")
	return ok && len(hash) == 64 && strings.Trim(hash, "0123456789abcdef") == ""
}

// checkIndex refuses an index that is no JSON before the library reads it.
func checkIndex(dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		return err
	}
	if !json.Valid(data) {
		return errors.New("index.json is not valid JSON")
	}
	return nil
}
