package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"coracle/pkg/apiserver/h2"
	"coracle/pkg/pki"
)

// ServeOptions say where a control plane listens and where its keys are. The
// zero value of each file means that the control plane keeps its own below
// DataDir.
type ServeOptions struct {
	Config

	// DataDir holds everything the control plane keeps: pki/, etcd/ and
	// admin.kubeconfig.
	DataDir string
	// BindAddress and SecurePort are where it listens; port 0 picks a free one.
	BindAddress string
	SecurePort  int
	// AdvertiseAddress is what the kubernetes Service points to, and listened
	// on as well; empty means
	// BindAddress, or the first global address of this machine when that is
	// unspecified.
	AdvertiseAddress string
	// CertDir is where apiserver.crt and apiserver.key are looked for.
	CertDir string
	// TLSCertFile and TLSKeyFile are the serving certificate.
	TLSCertFile, TLSKeyFile string
	// ExtraSANs are further names and addresses of the serving certificate.
	ExtraSANs []string
	// ClientCAFile holds the authorities of client certificates.
	ClientCAFile string
	// RevokedFile lists client certificates that are refused; empty means the list
	// in DataDir.
	RevokedFile string
	// RequestHeaderCAFile holds the authorities of front proxies, of which
	// RequestHeaderAllowedNames are believed; ProxyClientCertFile and its key are
	// the server's own certificate of theirs.
	RequestHeaderCAFile                     string
	RequestHeaderAllowedNames               []string
	ProxyClientCertFile, ProxyClientKeyFile string
	// ServiceAccountKeyFiles verify, ServiceAccountSigningKeyFile signs tokens.
	ServiceAccountKeyFiles       []string
	ServiceAccountSigningKeyFile string
	// ServiceAccountIssuers are the URLs that tokens may name as theirs; the first
	// is that of new ones.
	ServiceAccountIssuers []string
	// APIAudiences are the server's own names as a receiver of tokens; empty means
	// the first issuer's.
	APIAudiences []string
	// ServiceAccountJWKSURI is where the discovery document says that the keys
	// are; empty means below the issuer.
	ServiceAccountJWKSURI string
	// MaxTokenLife bounds the life of service account tokens; zero means a day.
	MaxTokenLife time.Duration
	// TokenFile holds bearer tokens and whose they are, see auth.ParseTokenFile.
	TokenFile string
	// AuthenticationFile is an AuthenticationConfiguration, in place of OIDC and
	// Anonymous.
	AuthenticationFile string
	// ReloadEvery is the time between two looks at the files named here, which
	// may change while the server runs; default 10 s.
	ReloadEvery time.Duration
}

// Files is what a control plane that keeps its own keys has in its folder.
type Files struct {
	// CA is the authority of the cluster, nil when the flags brought another.
	CA *pki.LiveCA
	// PKI is the folder of keys and certificates.
	PKI string
	// Kubeconfig is the administrator's, empty when there is no CA.
	Kubeconfig string
	// Address is where the API server listens.
	Address netip.AddrPort

	frontCA *pki.LiveCA   // of front proxies, nil as CA
	serving *pki.Live     // the server's own certificate
	keepers []*pki.Keeper // renew the certificates that the server issued itself
	reloads []*reload     // follow those that the flags brought
}

const (
	defaultIssuer = "https://kubernetes.default.svc.cluster.local"
	// shutdownGrace is how long requests under way may take at the end; watches
	// are cut off then, and their clients resume elsewhere.
	shutdownGrace = time.Second
	// readHeaderTimeout and maxHeaderBytes bound what an unknown peer costs.
	readHeaderTimeout = 10 * time.Second
	maxHeaderBytes    = 64 << 10
	// idleTimeout is how long a connection without requests is kept.
	idleTimeout = 90 * time.Second
	// A connection on which nothing came for pingAfter is asked for a sign of
	// life, and closed with all its watches when none comes within pingLimit.
	pingAfter = 30 * time.Second
	pingLimit = 15 * time.Second
)

// Serve composes a control plane, listens with TLS and runs until ctx ends.
func Serve(ctx context.Context, opts ServeOptions) error {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if err := opts.Config.complete(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(opts.BindAddress, strconv.Itoa(opts.SecurePort)))
	if err != nil {
		return fmt.Errorf("listen for the API: %w (is another server on this port? choose one with --secure-port)", err)
	}
	defer closeQuietly(listener)
	files, tlsConfig, err := opts.prepare(listener.Addr())
	if err != nil {
		return err
	}
	cp, err := New(opts.Config)
	if err != nil {
		return err
	}
	listeners := []net.Listener{cp.connections.listener(listener, tlsConfig)}
	if second, err := opts.listenAdvertised(ctx, files.Address); err != nil {
		return err
	} else if second != nil {
		defer closeQuietly(second)
		listeners = append(listeners, cp.connections.listener(second, tlsConfig))
	}
	return opts.run(ctx, cp, files, listeners)
}

// listenAdvertised also listens on the advertised address when that is not
// the one bound to: a local cluster's API server is on the loopback for its
// user and on the cluster's bridge for the nodes. The address may be put on
// its interface later (IP_FREEBIND).
func (o *ServeOptions) listenAdvertised(ctx context.Context, bound netip.AddrPort) (net.Listener, error) {
	if o.AdvertiseAddress == "" || bound.Addr().IsUnspecified() || o.Advertise.Addr() == bound.Addr().Unmap() {
		return nil, nil
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var opt error
		err := c.Control(func(fd uintptr) { opt = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) })
		return errors.Join(err, opt)
	}}
	l, err := lc.Listen(ctx, "tcp", o.Advertise.String())
	if err != nil {
		return nil, fmt.Errorf("listen for the API on the advertised address: %w", err)
	}
	return l, nil
}

func closeQuietly(l net.Listener) {
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		slog.Default().Debug("close a listener", "error", err)
	}
}

func (o *ServeOptions) run(ctx context.Context, cp *ControlPlane, files *Files, listeners []net.Listener) error {
	server := &http.Server{
		Handler: guarded(cp.whenReady(), files.serving), ReadHeaderTimeout: readHeaderTimeout, MaxHeaderBytes: maxHeaderBytes,
		ConnState: cp.connections.state, IdleTimeout: idleTimeout, ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	streams := h2.New(h2.Config{MaxHeaderBytes: maxHeaderBytes, IdleTimeout: idleTimeout, PingAfter: pingAfter, PingLimit: pingLimit, Log: o.Log})
	streams.Attach(server)
	defer streams.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return cp.Run(ctx) })
	if len(files.reloads) > 0 {
		g.Go(func() error {
			if cp.WaitReady(ctx) == nil {
				o.follow(ctx, cp, files.reloads)
			}
			return nil
		})
	}
	g.Go(func() error { return o.watchAuthorities(ctx, files) })
	for _, k := range files.keepers {
		g.Go(func() error { return k.Run(ctx) })
	}
	for _, l := range listeners {
		g.Go(func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve the API: %w", err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
		defer cancel()
		if err := server.Shutdown(grace); err != nil {
			return server.Close() // watches do not end by themselves
		}
		return nil
	})
	g.Go(func() error {
		if err := cp.WaitReady(ctx); err == nil {
			o.Log.Info("the API server is ready", "address", files.Address.String(), "kubeconfig", files.Kubeconfig)
		}
		return nil
	})
	return g.Wait()
}

// prepare loads or makes keys and certificates and writes the administrator's
// kubeconfig.
func (o *ServeOptions) prepare(addr net.Addr) (*Files, *tls.Config, error) {
	files := &Files{PKI: filepath.Join(o.DataDir, "pki"), Address: addr.(*net.TCPAddr).AddrPort()}
	if o.DataDir != "" {
		if err := os.MkdirAll(files.PKI, 0o700); err != nil {
			return nil, nil, fmt.Errorf("make the folder for keys: %w", err)
		}
		a, err := pki.LoadAuthorities(files.PKI, pki.ClusterCA, clusterAuthority, o.Clock.Now(), o.Rand)
		if err != nil {
			return nil, nil, err
		}
		files.CA = pki.NewLiveCA(a)
	}
	advertise, err := o.advertise(files.Address)
	if err != nil {
		return nil, nil, err
	}
	o.Advertise = advertise
	if files.serving, err = o.serving(files); err != nil {
		return nil, nil, err
	}
	if err := o.authenticationFile(files); err != nil {
		return nil, nil, err
	}
	if o.Identity, err = o.identity(files); err != nil {
		return nil, nil, err
	}
	if files.CA != nil {
		if err := o.writeKubeconfig(files); err != nil {
			return nil, nil, err
		}
		o.followAuthorities(files)
	}
	// Certificates are asked for, and verified by the authenticator: a client may
	// show one of another cluster beside its token.
	return files, pki.ServerConfig(files.serving, &o.Identity.asked), nil
}

// advertise is the address that the kubernetes Service's endpoints publish.
func (o *ServeOptions) advertise(listening netip.AddrPort) (netip.AddrPort, error) {
	if o.AdvertiseAddress != "" {
		ip, err := netip.ParseAddr(o.AdvertiseAddress)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("--advertise-address %q is not an IP address", o.AdvertiseAddress)
		}
		return netip.AddrPortFrom(ip, listening.Port()), nil
	}
	// Endpoints may not be loopback addresses, so that one is published which
	// the machine has besides, as upstream does.
	if !listening.Addr().IsUnspecified() && !listening.Addr().IsLoopback() {
		return netip.AddrPortFrom(listening.Addr().Unmap(), listening.Port()), nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("find an address to advertise: %w (give one with --advertise-address)", err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && p.Addr().IsGlobalUnicast() {
			return netip.AddrPortFrom(p.Addr(), listening.Port()), nil
		}
	}
	return netip.AddrPort{}, nil
}

// serving is the server's own certificate: the one given, the one in CertDir,
// or one of the cluster's authority.
func (o *ServeOptions) serving(files *Files) (*pki.Live, error) {
	cert, key := o.TLSCertFile, o.TLSKeyFile
	if cert == "" && o.CertDir != "" {
		inDir := pki.CertFile(o.CertDir, "apiserver")
		if _, err := os.Stat(inDir); err == nil {
			cert, key = inDir, pki.KeyFile(o.CertDir, "apiserver")
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for a serving certificate: %w", err)
		}
	}
	live := &pki.Live{}
	if cert != "" {
		load := func() error { return loadPair(live, cert, key) }
		files.reloads = append(files.reloads, &reload{what: "the serving certificate", files: []string{cert, key},
			apply: func(context.Context, *ControlPlane) error { return load() }})
		return live, load()
	}
	ca, dir := files.CA, files.PKI
	if ca == nil {
		if o.CertDir == "" {
			return nil, errors.New("the API server needs a folder for its certificates: give --data-dir, or --cert-dir, or --tls-cert-file with --tls-private-key-file")
		}
		own, err := pki.LoadOrCreateCA(o.CertDir, "apiserver-ca", "coracle-apiserver", o.Clock.Now(), o.Rand)
		if err != nil {
			return nil, err
		}
		ca, dir = pki.FixedCA(own), o.CertDir
	}
	return live, o.keep(files, &pki.Keeper{Dir: dir, Name: "apiserver", CA: ca, Request: o.servingRequest, Live: live})
}

// keep issues a certificate now and has it renewed while the server runs.
func (o *ServeOptions) keep(files *Files, k *pki.Keeper) error {
	k.Now, k.Rand, k.Log = o.Clock.Now, o.Rand, o.Log
	if err := k.Refresh(); err != nil {
		return err
	}
	files.keepers = append(files.keepers, k)
	return nil
}

func (o *ServeOptions) servingRequest() pki.Request {
	r := pki.Request{
		CommonName: "kube-apiserver", ServerAuth: true,
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPs:      []net.IP{net.IPv4(127, 0, 0, 1), o.ServiceCIDR.Masked().Addr().Next().AsSlice()},
	}
	if o.Advertise.IsValid() {
		r.IPs = append(r.IPs, o.Advertise.Addr().AsSlice())
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		r.DNSNames = append(r.DNSNames, host)
	}
	for _, san := range append(o.ExtraSANs, o.BindAddress) {
		if ip := net.ParseIP(san); ip != nil {
			if !ip.IsUnspecified() {
				r.IPs = append(r.IPs, ip)
			}
		} else if san != "" {
			r.DNSNames = append(r.DNSNames, san)
		}
	}
	return r
}
