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
