package image

import (
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// plain returns the same image with uncompressed layers: the library would
// compress the layers of a "docker save" file only for a node to unpack them.
func plain(img v1.Image) (v1.Image, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	out := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	out = mutate.ConfigMediaType(out, types.OCIConfigJSON)
	for _, l := range layers {
		p := plainLayer{Layer: l}
		if p.size, err = p.count(); err != nil {
			return nil, err
		}
		if out, err = mutate.AppendLayers(out, p); err != nil {
			return nil, err
		}
	}
	// The history and the layers' identifiers are the original's.
	return mutate.ConfigFile(out, config)
}

// plainLayer serves a layer uncompressed.
type plainLayer struct {
	v1.Layer
	size int64
}

var _ v1.Layer = plainLayer{}

func (p plainLayer) Digest() (v1.Hash, error)            { return p.DiffID() }
func (p plainLayer) Compressed() (io.ReadCloser, error)  { return p.Uncompressed() }
func (p plainLayer) Size() (int64, error)                { return p.size, nil }
func (p plainLayer) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }

func (p plainLayer) count() (int64, error) {
	rc, err := p.Uncompressed()
	if err != nil {
		return 0, err
	}
	defer rc.Close()
	return io.Copy(io.Discard, rc)
}
