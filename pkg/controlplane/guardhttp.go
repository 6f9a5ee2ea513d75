package controlplane

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"coracle/pkg/apiserver"
	"coracle/pkg/pki"
)

// strictTransport tells browsers that a name is for TLS alone.
const strictTransport = "max-age=31536000"

// guarded is what a listener with TLS adds to the API: a header for browsers,
// and on the loopback a look at the name by which the server was called. A page
// of a stranger whose name leads here (DNS rebinding) is refused whatever
// certificates a browser was told to accept.
func guarded(next http.Handler, serving *pki.Live) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostOf(r.Host)
		if r.TLS != nil && host != "localhost" { // localhost has other servers, without TLS
			w.Header().Set("Strict-Transport-Security", strictTransport)
		}
		if onLoopback(r) && !ownName(host, serving) {
			err := apierrors.NewGenericServerResponse(http.StatusMisdirectedRequest, "", schema.GroupResource{}, "", "", 0, false)
			err.ErrStatus.Message = "this server is not called by that name: call it localhost or by its address, or start it with --tls-san and the name"
			apiserver.WriteError(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostOf is a Host header without its port.
func hostOf(header string) string {
	host, _, err := net.SplitHostPort(header)
	if err != nil {
		host = strings.Trim(header, "[]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// onLoopback says that a request came in by an address of the loopback.
func onLoopback(r *http.Request) bool {
	at, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && at.IP.IsLoopback()
}

// ownName says that a host is an address, or a name that the server's
// certificate is for.
func ownName(host string, serving *pki.Live) bool {
	if _, err := netip.ParseAddr(host); err == nil || host == "localhost" || host == "" {
		return true
	}
	leaf := serving.Leaf()
	return leaf != nil && leaf.VerifyHostname(host) == nil
}
