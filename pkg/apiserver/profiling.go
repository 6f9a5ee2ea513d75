package apiserver

import (
	"net/http"
	"net/http/pprof"
	"strings"
)

// profilingPath begins the paths of Go's profiles. They are authorized as any
// other path, and no role but the administrators' names them.
const profilingPath = "/debug/pprof"

// profiling serves Go's profiles. The library also puts its handlers on
// http.DefaultServeMux, which this server never serves.
func profiling() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(profilingPath+"/", pprof.Index) // and every named profile
	mux.HandleFunc(profilingPath+"/cmdline", pprof.Cmdline)
	mux.HandleFunc(profilingPath+"/profile", pprof.Profile)
	mux.HandleFunc(profilingPath+"/symbol", pprof.Symbol)
	mux.HandleFunc(profilingPath+"/trace", pprof.Trace)
	return mux
}

// profiled says whether a path is that of a profile.
func profiled(path string) bool {
	return path == profilingPath || strings.HasPrefix(path, profilingPath+"/")
}

// fairnessPath begins the paths of priority and fairness' tables, which name
// users: no role but the administrators' names them.
const fairnessPath = "/debug/api_priority_and_fairness/"

// serveFairness tells of levels, queues and requests that wait.
func (s *Server) serveFairness(w http.ResponseWriter, r *http.Request, name string) {
	text, ok := s.cfg.Fairness.Dump(name)
	switch {
	case !ok:
		WriteError(w, notFoundPath())
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		WriteError(w, pathMethodNotSupported())
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		writeAll(w, text)
	}
}
