package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// healthTimeout bounds each part of a health check request.
const healthTimeout = 5 * time.Second

// healthServers answer on the health check ports of load balanced services
// with externalTrafficPolicy Local: 200 where the node has endpoints, 503 where
// it has none, so that the load balancer sends traffic to the right nodes.
type healthServers struct {
	listen func(network, address string) (net.Listener, error)
	log    *slog.Logger

	// servers is used by the loop alone.
	servers map[types.NamespacedName]*healthServer
	running sync.WaitGroup
}

// healthServer is one port.
type healthServer struct {
	name types.NamespacedName
	http *http.Server

	mu sync.Mutex
	// health is what to answer; guarded by mu.
	health Health
}

func newHealthServers(listen func(network, address string) (net.Listener, error), log *slog.Logger) *healthServers {
	return &healthServers{listen: listen, log: log, servers: map[types.NamespacedName]*healthServer{}}
}

// set starts, changes or (nil) ends the health check port of a service. An
// error leaves the service without its port until the next set.
func (h *healthServers) set(name types.NamespacedName, want *Health) error {
	s := h.servers[name]
	if s != nil && (want == nil || s.current().Port != want.Port) {
		delete(h.servers, name)
		_ = s.http.Close()
		s = nil
	}
	if want == nil {
		return nil
	}
	if s != nil {
		s.mu.Lock()
		s.health = *want
		s.mu.Unlock()
		return nil
	}
	l, err := h.listen("tcp", net.JoinHostPort("", strconv.Itoa(int(want.Port))))
	if err != nil {
		return fmt.Errorf("open the health check port of service %s: %w", name, err)
	}
	s = &healthServer{name: name, health: *want}
	s.http = &http.Server{
		Handler: s, ReadTimeout: healthTimeout, WriteTimeout: healthTimeout, IdleTimeout: healthTimeout,
		MaxHeaderBytes: 8 << 10,
	}
	h.servers[name] = s
	h.running.Go(func() {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			h.log.Error("health check port ended", "service", name, "error", err)
		}
	})
	return nil
}

// close ends all ports and waits for their servers.
func (h *healthServers) close() {
	for _, s := range h.servers {
		_ = s.http.Close()
	}
	h.running.Wait()
}

func (s *healthServer) current() Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health
}

// ServeHTTP answers any path.
func (s *healthServer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	health := s.current()
	var body struct {
		Service struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"service"`
		LocalEndpoints      int  `json:"localEndpoints"`
		ServiceProxyHealthy bool `json:"serviceProxyHealthy"`
	}
	body.Service.Namespace, body.Service.Name = s.name.Namespace, s.name.Name
	body.LocalEndpoints, body.ServiceProxyHealthy = health.Local, true
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(health.Local))
	if health.Local == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body)
}

// listenTCP is the default of Config.Listen.
func listenTCP(network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(context.Background(), network, address)
}
