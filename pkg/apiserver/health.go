package apiserver

import (
	"fmt"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

func stack() string { return string(debug.Stack()) }

// serveHealth answers /livez, /readyz and /healthz, and single checks below
// them. ?verbose lists all, ?exclude=NAME leaves one out.
func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	endpoint, only, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
	exclude := r.URL.Query()["exclude"]
	var lines strings.Builder
	failed, found := false, only == ""
	for _, c := range append([]Check{{Name: "ping", Live: true}}, s.cfg.Checks...) {
		if endpoint == "livez" && !c.Live || only != "" && c.Name != only {
			continue
		}
		found = true
		if i := slices.Index(exclude, c.Name); i >= 0 {
			exclude = slices.Delete(exclude, i, i+1)
			fmt.Fprintf(&lines, "[+]%s excluded: ok\n", c.Name)
			continue
		}
		if c.Check != nil {
			if err := c.Check(r.Context()); err != nil {
				failed = true
				s.cfg.Log.Warn("a health check failed", "check", c.Name, "error", err)
				fmt.Fprintf(&lines, "[-]%s failed: reason withheld\n", c.Name)
				continue
			}
		}
		fmt.Fprintf(&lines, "[+]%s ok\n", c.Name)
	}
	if len(exclude) > 0 {
		fmt.Fprintf(&lines, "warn: some health checks cannot be excluded: no matches for %s\n", quotedList(exclude))
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	switch {
	case !found:
		WriteError(w, notFoundPath())
	case failed:
		w.WriteHeader(http.StatusInternalServerError)
		writeAll(w, []byte(lines.String()+endpoint+" check failed\n"))
	case r.URL.Query().Has("verbose"):
		writeAll(w, []byte(lines.String()+endpoint+" check passed\n"))
	default:
		writeAll(w, []byte("ok"))
	}
}

// quotedList shows names that a client made up.
func quotedList(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = strconv.Quote(name)
	}
	return strings.Join(quoted, ",")
}
