package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A published volume looks like this, so that one rename changes all of it:
//
//	..2026_01_02_15_04_05.123456789/key   the files
//	..data -> ..2026_01_02_15_04_05.123456789
//	key    -> ..data/key
const (
	dataLink    = "..data"
	newDataLink = "..data_tmp"
	stampFormat = "..2006_01_02_15_04_05.000000000"
)

// publish makes the volume's folder show exactly the payload. Containers get it
// read-only.
func (m *Manager) publish(r request, p *payload) (Source, error) {
	if err := p.check(); err != nil {
		return Source{}, err
	}
	group := fsGroup(r.pod)
	if p.inMemory {
		if err := mountTmpfs(r.dir, 0, group); err != nil {
			return Source{}, err
		}
	} else if err := makeSharedDir(r.dir, group); err != nil {
		return Source{}, err
	}
	root, err := os.OpenRoot(r.dir)
	if err != nil {
		return Source{}, err
	}
	defer root.Close()
	w := writer{root: root, payload: p, group: group}
	if err := w.write(m.cfg.Clock.Now()); err != nil {
		return Source{}, fmt.Errorf("writing files: %w", err)
	}
	return publishedAt(r.dir), nil
}

// publishedAt is a volume that the writer has filled.
func publishedAt(dir string) Source {
	return Source{HostPath: dir, ReadOnly: true, published: true}
}

// isPublished reports whether the writer has filled the volume before.
func isPublished(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, dataLink))
	return err == nil
}

// writer changes one volume. All paths are resolved beneath root by descriptor.
type writer struct {
	root    *os.Root
	payload *payload
	// group owns all files and may read them; nil is root.
	group *int64
}

func (w *writer) write(now time.Time) error {
	old, err := w.root.Readlink(dataLink)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	current := old
	if old == "" || !w.shows(old) {
		if current, err = w.fill(now); err != nil {
			return err
		}
		if err := w.root.Remove(newDataLink); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := w.root.Symlink(current, newDataLink); err != nil {
			return err
		}
		if err := w.root.Rename(newDataLink, dataLink); err != nil {
			return err
		}
	}
	return w.tidy(current)
}

// shows reports whether the folder holds exactly the payload.
func (w *writer) shows(dir string) bool {
	found := 0
	err := fs.WalkDir(w.root.FS(), dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		want, ok := w.payload.files[strings.TrimPrefix(name, dir+"/")]
		if !ok {
			return fs.ErrInvalid
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok || !info.Mode().IsRegular() || stat.Mode&0o7777 != w.modeOf(want) || stat.Uid != owner(want.user) || stat.Gid != owner(w.group) {
			return fs.ErrInvalid
		}
		have, err := w.root.ReadFile(name)
		if err == nil && !bytes.Equal(have, want.data) {
			err = fs.ErrInvalid
		}
		found++
		return err
	})
	return err == nil && found == len(w.payload.files)
}

// fill writes the payload to a new folder and gives its name.
func (w *writer) fill(now time.Time) (string, error) {
	dir, err := w.makeStamped(now)
	if err != nil {
		return "", err
	}
	if err := w.ownDir(dir); err != nil {
		return "", err
	}
	for name, f := range w.payload.files {
		if err := w.makeParents(dir, path.Dir(name)); err != nil {
			return "", err
		}
		if err := w.writeFile(path.Join(dir, name), f); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// makeStamped makes a folder named after the time, or a little later if that
// name is taken.
func (w *writer) makeStamped(now time.Time) (string, error) {
	for i := range 100 {
		dir := now.Add(time.Duration(i)).UTC().Format(stampFormat)
		err := w.root.Mkdir(dir, 0o755)
		if !errors.Is(err, fs.ErrExist) {
			return dir, err
		}
	}
	return "", errors.New("no free name for a new version of the volume")
}

func (w *writer) makeParents(dir, rel string) error {
	if rel == "." {
		return nil
	}
	if err := w.makeParents(dir, path.Dir(rel)); err != nil {
		return err
	}
	full := path.Join(dir, rel)
	if err := w.root.Mkdir(full, 0o755); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		return err
	}
	return w.ownDir(full)
}

// ownDir gives a folder its group and a mode that no umask has touched.
func (w *writer) ownDir(name string) error {
	f, err := w.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	mode := uint32(0o755)
	if w.group != nil {
		if err := f.Chown(-1, int(*w.group)); err != nil {
			return err
		}
		mode |= unix.S_ISGID
	}
	return unix.Fchmod(int(f.Fd()), mode)
}

// writeFile writes a file that nobody but root can read until it is whole.
func (w *writer) writeFile(name string, f file) error {
	out, err := w.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(f.data)
	if err == nil {
		err = out.Chown(int(owner(f.user)), int(owner(w.group)))
	}
	if err == nil {
		err = unix.Fchmod(int(out.Fd()), w.modeOf(f))
	}
	return errors.Join(err, out.Close())
}

// modeOf is the file's mode, readable by the pod's group where it has one.
func (w *writer) modeOf(f file) uint32 {
	mode := uint32(f.mode)
	if w.group != nil {
		mode |= 0o440
	}
	return mode
}

// tidy makes the visible names those of the payload and removes old versions.
func (w *writer) tidy(current string) error {
	want := w.payload.top()
	entries, err := fs.ReadDir(w.root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if name == dataLink || name == current {
			continue
		}
		if target, err := w.root.Readlink(name); err == nil && want[name] && target == dataLink+"/"+name {
			delete(want, name)
			continue
		}
		if err := w.root.RemoveAll(name); err != nil {
			return fmt.Errorf("removing %s: %w", strconv.Quote(name), err)
		}
	}
	for name := range want {
		if err := w.root.Symlink(dataLink+"/"+name, name); err != nil {
			return err
		}
	}
	return nil
}

func owner(id *int64) uint32 {
	if id == nil {
		return 0
	}
	return uint32(*id)
}
