package controlplane

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

const (
	// reloadEvery is the time between two looks at the files of the flags, and
	// maxKeyFile bounds what is read of each.
	reloadEvery = 10 * time.Second
	maxKeyFile  = 1 << 20
)

// reload follows files of the flags, so that keys and certificates are replaced
// with no restart. Content is compared, not times: a mounted Secret changes by a
// link that points elsewhere.
type reload struct {
	what  string
	files []string
	// mayLack says that some of the files need not be there.
	mayLack bool
	// apply reads the files and puts them into force, or changes nothing and says
	// why.
	apply func(ctx context.Context, cp *ControlPlane) error
	// Of the last content in force, and of the last that could not be: only run
	// uses them.
	seen, refused [sha256.Size]byte
}

// check puts what has changed into force. Files that are replaced one after the
// other do not fit together in between: the old ones stay until all do.
func (r *reload) check(ctx context.Context, cp *ControlPlane, log *slog.Logger) {
	sum, err := fingerprint(r.files, r.mayLack)
	if err == nil && sum == r.seen {
		return
	}
	if err == nil {
		if err = r.apply(ctx, cp); err == nil {
			r.seen = sum
			log.Debug("files are in force", "what", r.what)
			return
		}
	}
	if sum != r.refused || sum == [sha256.Size]byte{} {
		log.Error("changed files are not in force: what was read before stays", "what", r.what, "error", err)
	}
	r.refused = sum
}

func fingerprint(files []string, mayLack bool) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for _, name := range files {
		data, err := readKeyFile(name)
		if mayLack && errors.Is(err, fs.ErrNotExist) {
			h.Write(make([]byte, sha256.Size)) // no content has this sum
			continue
		}
		if err != nil {
			return sum, err
		}
		one := sha256.Sum256(data)
		h.Write(one[:])
	}
	h.Sum(sum[:0])
	return sum, nil
}

// readKeyFile reads a file of the flags, within bounds.
func readKeyFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil && len(data) > maxKeyFile {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxKeyFile)
	}
	return data, err
}

// follow looks at the files until ctx ends.
func (o *ServeOptions) follow(ctx context.Context, cp *ControlPlane, reloads []*reload) {
	every := o.ReloadEvery
	if every <= 0 {
		every = reloadEvery
	}
	tick := o.Clock.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C():
			for _, r := range reloads {
				r.check(ctx, cp, o.Log)
			}
		}
	}
}
