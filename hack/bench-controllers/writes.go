package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// write is a kind of write: who did what to what.
type write struct{ user, verb, resource string }

func (w write) String() string {
	name := strings.TrimPrefix(w.user, "system:serviceaccount:kube-system:")
	return fmt.Sprintf("%s: %s %s", name, w.verb, w.resource)
}

// writes reads the audit log from a moment on.
type writes struct {
	file string
	from int64
}

// newWrites leaves out what was written until now.
func newWrites(file string) (*writes, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	return &writes{file: file, from: st.Size()}, nil
}

// count counts the writes that succeeded. Nodes count as one user.
func (w *writes) count() (map[write]int, error) {
	f, err := os.Open(w.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(w.from, io.SeekStart); err != nil {
		return nil, err
	}
	return countWrites(f)
}

// maxLine bounds a line of the log, which has no bodies.
const maxLine = 1 << 20

func countWrites(in io.Reader) (map[write]int, error) {
	out := map[write]int{}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var e struct {
			Verb             string
			User             struct{ Username string }
			ImpersonatedUser struct{ Username string }
			ObjectRef        struct{ Resource, Subresource string }
			ResponseStatus   struct{ Code int }
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("the audit log has a line that cannot be read: %w", err)
		}
		if e.ResponseStatus.Code >= 300 || e.ObjectRef.Resource == "" {
			continue
		}
		w := write{user: e.User.Username, verb: e.Verb, resource: e.ObjectRef.Resource}
		if as := e.ImpersonatedUser.Username; as != "" {
			w.user = as
		}
		if strings.HasPrefix(w.user, "system:node:") {
			w.user = "nodes"
		}
		if e.ObjectRef.Subresource != "" {
			w.resource += "/" + e.ObjectRef.Subresource
		}
		out[w]++
	}
	return out, lines.Err()
}

// sorted are the writes, the most frequent first.
func sorted(counts map[write]int) []write {
	var out []write
	for w := range counts {
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b write) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a.String(), b.String())
	})
	return out
}
