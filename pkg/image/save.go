package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Save writes images to a file as a tar file of an OCI layout, which keeps
// digests and uncompressed layers as they are. The same images give the same
// bytes.
func Save(file string, images []Named) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".image-*")
	if err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	defer os.Remove(tmp.Name())
	err = errors.Join(writeLayout(tmp, images), tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("save images to %s: %w", file, err)
	}
	return nil
}

// layoutWriter writes the entries of an OCI layout, each blob once.
type layoutWriter struct {
	tw    *tar.Writer
	blobs map[string]bool
}

func writeLayout(w io.Writer, images []Named) error {
	lw := &layoutWriter{tw: tar.NewWriter(w), blobs: map[string]bool{}}
	images = slices.Clone(images)
	for i := range images {
		full, err := Reference(images[i].Ref)
		if err != nil {
			return err
		}
		images[i].Ref = full
	}
	slices.SortFunc(images, func(a, b Named) int { return strings.Compare(a.Ref, b.Ref) })
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	if err := lw.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	for _, n := range images {
		d, err := lw.image(n)
		if err != nil {
			return fmt.Errorf("image %s: %w", n.Ref, err)
		}
		index.Manifests = append(index.Manifests, *d)
	}
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := lw.file("index.json", data); err != nil {
		return err
	}
	return lw.tw.Close()
}

func (lw *layoutWriter) image(n Named) (*v1.Descriptor, error) {
	layers, err := n.Image.Layers()
	if err != nil {
		return nil, err
	}
	for _, l := range layers {
		if err := lw.layer(l); err != nil {
			return nil, err
		}
	}
	config, err := n.Image.RawConfigFile()
	if err != nil {
		return nil, err
	}
	configName, err := n.Image.ConfigName()
	if err != nil {
		return nil, err
	}
	manifest, err := n.Image.RawManifest()
	if err != nil {
		return nil, err
	}
	digest, err := n.Image.Digest()
	if err != nil {
		return nil, err
	}
	mediaType, err := n.Image.MediaType()
	if err != nil {
		return nil, err
	}
	if err := lw.blob(configName, int64(len(config)), bytes.NewReader(config)); err != nil {
		return nil, err
	}
	if err := lw.blob(digest, int64(len(manifest)), bytes.NewReader(manifest)); err != nil {
		return nil, err
	}
	return &v1.Descriptor{
		MediaType:   mediaType,
		Size:        int64(len(manifest)),
		Digest:      digest,
		Annotations: map[string]string{refAnnotations[0]: n.Ref},
	}, nil
}

func (lw *layoutWriter) layer(l v1.Layer) error {
	digest, err := l.Digest()
	if err != nil {
		return err
	}
	size, err := l.Size()
	if err != nil {
		return err
	}
	rc, err := l.Compressed()
	if err != nil {
		return err
	}
	defer rc.Close()
	return lw.blob(digest, size, rc)
}

func (lw *layoutWriter) blob(h v1.Hash, size int64, from io.Reader) error {
	name := "blobs/" + h.Algorithm + "/" + h.Hex
	if lw.blobs[name] {
		return nil
	}
	lw.blobs[name] = true
	if err := lw.tw.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644}); err != nil {
		return err
	}
	_, err := io.Copy(lw.tw, from)
	return err
}

func (lw *layoutWriter) file(name string, data []byte) error {
	if err := lw.tw.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Mode: 0o644}); err != nil {
		return err
	}
	_, err := lw.tw.Write(data)
	return err
}
