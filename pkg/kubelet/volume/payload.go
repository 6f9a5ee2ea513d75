package volume

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// defaultMode is the mode of files for which nothing else is said.
const defaultMode = 0o644

// payload is the whole content of a volume that shows API objects.
type payload struct {
	// files by their clean path relative to the volume.
	files map[string]file
	// mode and user apply to files that do not say otherwise; a nil user is root.
	mode int32
	user *int64
	// inMemory keeps the volume off the disk.
	inMemory bool
}

// file is one file of a payload.
type file struct {
	data []byte
	// mode holds permission bits only.
	mode int32
	// user owns the file; nil is root.
	user *int64
}

func newPayload(mode *int32, user *int64) *payload {
	p := &payload{files: make(map[string]file), mode: defaultMode, user: user}
	if mode != nil {
		p.mode = *mode
	}
	return p
}

// add puts a file into the payload. A later file of the same path wins.
func (p *payload) add(name string, data []byte, mode *int32, user *int64) error {
	if err := checkPath(name); err != nil {
		return err
	}
	f := file{data: data, mode: p.mode, user: p.user}
	if mode != nil {
		f.mode = *mode
	}
	if user != nil {
		f.user = user
	}
	f.mode &= 0o777
	p.files[path.Clean(name)] = f
	return nil
}

// addKeys adds the keys of an object: all of them, each under its own name, or
// those that items choose. A chosen key that is missing is left out if the
// object is optional.
func (p *payload) addKeys(data map[string][]byte, items []corev1.KeyToPath, optional bool) error {
	if len(items) == 0 {
		for _, key := range slices.Sorted(maps.Keys(data)) {
			if err := p.add(key, data[key], nil, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range items {
		value, ok := data[items[i].Key]
		if !ok && optional {
			continue
		}
		if !ok {
			return fmt.Errorf("it has no key %q", items[i].Key)
		}
		if err := p.add(items[i].Path, value, items[i].Mode, items[i].User); err != nil {
			return err
		}
	}
	return nil
}

// check refuses a payload in which one path is both a file and a folder.
func (p *payload) check() error {
	for name := range p.files {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, clash := p.files[dir]; clash {
				return fmt.Errorf("path %q cannot be a file, since %q lies in it", dir, name)
			}
		}
	}
	return nil
}

// top lists the first elements of all paths.
func (p *payload) top() map[string]bool {
	names := make(map[string]bool)
	for name := range p.files {
		first, _, _ := strings.Cut(name, "/")
		names[first] = true
	}
	return names
}

// checkPath refuses paths that lead out of the volume or collide with the names
// that the writer keeps for itself, which start with two dots.
func checkPath(name string) error {
	switch {
	case name == "":
		return errors.New("a file of the volume has no path")
	case len(name) > 4096 || strings.Contains(name, "\x00"):
		return fmt.Errorf("path %.40q... is too long or holds a NUL", name)
	case path.IsAbs(name):
		return fmt.Errorf("path %q must be relative to the volume", name)
	case strings.HasPrefix(path.Clean(name), "..") || path.Clean(name) == ".":
		return fmt.Errorf("path %q must not start with '..'", name)
	case slices.Contains(strings.Split(name, "/"), ".."):
		return fmt.Errorf("path %q must not hold '..'", name)
	}
	for element := range strings.SplitSeq(name, "/") {
		if len(element) > 255 {
			return fmt.Errorf("path %.40q... has an element longer than 255 bytes", name)
		}
	}
	return nil
}
