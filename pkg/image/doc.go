// Package image makes container images without a container engine, reads and
// writes image archives, and loads images into a node's containerd.
//
// An image here is a v1.Image of go-containerregistry wherever it comes from:
// Build makes one from files in memory, Open reads an archive (the format of
// "docker save", or an OCI layout in a tar file), Pull fetches one from a
// registry. A Runtime is a connection to one containerd; Load copies into it
// only the blobs that it lacks, and is safe to repeat.
//
// Builds are reproducible: the same Spec gives the same digest on every
// machine, because files are sorted and carry no times, and layers are stored
// uncompressed. Uncompressed layers also make loading cheap, for these images
// never cross a network.
//
// This is the only package that imports containerd's API and
// go-containerregistry.
package image
