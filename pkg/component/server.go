package component

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"coracle/pkg/auth"
	"coracle/pkg/pki"
)

// Bounds of every connection.
const (
	headerTimeout  = 10 * time.Second
	requestTimeout = time.Minute
	keepAlive      = 90 * time.Second
	maxHeader      = 64 << 10
	shutdownGrace  = 2 * time.Second
)

// server is the secure port.
type server struct {
	role     *Role
	trust    *trust
	listener net.Listener
	tls      *tls.Config
	routes   *http.ServeMux
}

// server opens the port; nil when there shall be none.
func (r *Role) server(ctx context.Context) (*server, error) {
	if r.SecurePort == 0 && r.Listener == nil {
		return nil, nil
	}
	s := &server{role: r, listener: r.Listener}
	var err error
	if s.tls, err = r.serving(); err != nil {
		return nil, err
	}
	if s.trust, err = newTrust(r); err != nil {
		return nil, err
	}
	s.tls.ClientAuth = tls.RequestClientCert // verified by authentication
	if s.routes, err = r.routes(); err != nil {
		return nil, err
	}
	if s.listener == nil {
		if s.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", r.address()); err != nil {
			return nil, fmt.Errorf("listen for health and metrics: %w (change --bind-address or --secure-port)", err)
		}
	}
	return s, nil
}

// routes is what is served.
func (r *Role) routes() (*http.ServeMux, error) {
	mux := http.NewServeMux()
	alive := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }
	mux.HandleFunc("GET /healthz", alive)
	mux.HandleFunc("GET /livez", alive)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if r.Synced != nil && !r.Synced() {
			http.Error(w, "[-]informer-sync failed: not all objects have been read yet", http.StatusInternalServerError)
			return
		}
		_, _ = w.Write([]byte("ok"))
	})
	registry := prometheus.NewRegistry()
	for _, c := range append([]prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})}, r.Collectors...) {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register a metric: %w", err)
		}
	}
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	for _, route := range r.API {
		mux.Handle(route.Prefix, route.Handler)
		mux.Handle(route.Prefix+"/", route.Handler)
	}
	return mux, nil
}

// run serves until ctx ends.
func (s *server) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hs := &http.Server{
		Handler: s, ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout, IdleTimeout: keepAlive,
		MaxHeaderBytes: maxHeader, BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: slog.NewLogLogger(s.role.Log.Handler(), slog.LevelDebug),
	}
	var g errgroup.Group
	g.Go(func() error {
		defer cancel()
		if err := hs.Serve(tls.NewListener(s.listener, s.tls)); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve health and metrics: %w", err)
		}
		return nil
	})
	g.Go(func() error { return s.trust.run(ctx) })
	g.Go(func() error {
		<-ctx.Done()
		grace, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer stop()
		if hs.Shutdown(grace) != nil {
			return hs.Close()
		}
		return nil
	})
	return g.Wait()
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if slices.Contains(s.role.Open, r.URL.Path) {
		s.routes.ServeHTTP(w, r)
		return
	}
	user, known, err := (*s.trust.known.Load()).Authenticate(r.Context(), r)
	if err != nil || !known {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	allowed, reason, err := s.trust.may(r.Context(), s.role.wants(user, r))
	switch {
	case err != nil:
		s.role.Log.Warn("the API server could not be asked who may see what", "path", r.URL.Path, "error", err)
		http.Error(w, "the API server could not be asked for permission", http.StatusInternalServerError)
	case !allowed:
		http.Error(w, strings.TrimSpace("Forbidden: "+reason), http.StatusForbidden)
	default:
		s.routes.ServeHTTP(w, r)
	}
}

// wants is what a request wants to do.
func (r *Role) wants(user *auth.User, req *http.Request) auth.Attributes {
	a := auth.Attributes{User: user, Verb: strings.ToLower(req.Method), Path: req.URL.Path}
	for _, route := range r.API {
		rest, ok := strings.CutPrefix(req.URL.Path, route.Prefix+"/namespaces/")
		parts := strings.Split(strings.TrimSuffix(rest, "/"), "/")
		group := strings.Split(strings.TrimPrefix(route.Prefix, "/apis/"), "/")
		if !ok || len(parts) != 3 || len(group) != 2 {
			continue
		}
		a.ResourceRequest, a.APIGroup, a.APIVersion = true, group[0], group[1]
		a.Namespace, a.Resource, a.Name = parts[0], parts[1], parts[2]
	}
	return a
}

// serving is the certificate that the port shows.
func (r *Role) serving() (*tls.Config, error) {
	live := &pki.Live{}
	config := pki.ServerConfig(live, nil)
	if r.CertFile != "" {
		first, err := tls.LoadX509KeyPair(r.CertFile, r.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read --tls-cert-file and --tls-private-key-file: %w", err)
		}
		// Read anew for each connection, so that it is replaced with no restart.
		config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if now, err := tls.LoadX509KeyPair(r.CertFile, r.KeyFile); err == nil {
				return &now, nil
			}
			return &first, nil
		}
		return config, nil
	}
	now := time.Now()
	ca, err := pki.NewCA(r.Name, 0, now, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a serving certificate: %w", err)
	}
	request := pki.Request{CommonName: r.Name, ServerAuth: true, DNSNames: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}
	if ip := net.ParseIP(r.BindAddress); ip != nil && !ip.IsUnspecified() {
		request.IPs = append(request.IPs, ip)
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		request.DNSNames = append(request.DNSNames, host)
	}
	pair, err := ca.Issue(request, now, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a serving certificate: %w", err)
	}
	return config, live.Set(pair.CertPEM, pair.KeyPEM)
}
