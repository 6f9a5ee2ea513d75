package cluster

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"coracle/pkg/nodeconfig"
	"coracle/pkg/pki"
)

// standInAPIServer keeps node objects in a file and serves them, with the
// cluster's authority, at the addresses that the real one uses.
func standInAPIServer(args []string) error {
	flags := flag.NewFlagSet("apiserver", flag.ContinueOnError)
	flags.Bool("all-in-one", false, "")
	flags.Bool("enable-bootstrap-token-auth", false, "")
	dir := flags.String("data-dir", "", "")
	bindAddress := flags.String("bind-address", "", "")
	advertise := flags.String("advertise-address", "", "")
	port := flags.Int("secure-port", 0, "")
	flags.String("service-cluster-ip-range", "", "")
	flags.String("load-balancer-range", "", "")
	flags.Duration("node-monitor-grace-period", 0, "")
	flags.Duration("node-monitor-period", 0, "")
	flags.Int64("default-not-ready-toleration-seconds", 0, "")
	flags.Int64("default-unreachable-toleration-seconds", 0, "")
	flags.String("cluster-cidr", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	now := time.Now()
	ca, err := pki.LoadOrCreateCA(filepath.Join(*dir, "pki"), "ca", "test", now, rand.Reader)
	if err != nil {
		return err
	}
	serving, err := ca.Issue(pki.Request{
		CommonName: "kube-apiserver", ServerAuth: true,
		IPs: []net.IP{net.ParseIP(*bindAddress), net.ParseIP(*advertise)},
	}, now, rand.Reader)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(serving.CertPEM, serving.KeyPEM)
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: ca.Pool()}
	if err := writeAdmin(*dir, ca, *port); err != nil {
		return err
	}
	handler := &standInAPI{file: filepath.Join(*dir, "nodes.json")}
	ended := make(chan error)
	for _, address := range []string{*bindAddress, *advertise} {
		l, err := tls.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(*port)), config)
		if err != nil {
			return err
		}
		go func() { ended <- http.Serve(l, handler) }()
	}
	return <-ended
}

func writeAdmin(dir string, ca *pki.CA, port int) error {
	admin, err := ca.Issue(pki.Request{CommonName: "admin", Organization: []string{"system:masters"}, ClientAuth: true}, time.Now(), rand.Reader)
	if err != nil {
		return err
	}
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["local"] = &clientcmdapi.Cluster{Server: "https://127.0.0.1:" + strconv.Itoa(port), CertificateAuthorityData: ca.CertPEM()}
	cfg.AuthInfos["admin"] = &clientcmdapi.AuthInfo{ClientCertificateData: admin.CertPEM, ClientKeyData: admin.KeyPEM}
	cfg.Contexts["admin"] = &clientcmdapi.Context{Cluster: "local", AuthInfo: "admin"}
	cfg.CurrentContext = "admin"
	return clientcmd.WriteToFile(*cfg, filepath.Join(dir, "admin.kubeconfig"))
}

// standInAPI keeps nodes, and when each gave its last sign of life, in a file.
type standInAPI struct {
	mu   sync.Mutex
	file string
}

type standInState struct {
	Nodes  map[string]corev1.Node
	Leases map[string]coordinationv1.Lease
}

func (a *standInAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.URL.Path == "/readyz" {
		fmt.Fprint(w, "ok")
		return
	}
	if len(r.TLS.PeerCertificates) == 0 {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	answer, err := a.answer(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func (a *standInAPI) answer(r *http.Request) (any, error) {
	state := standInState{Nodes: map[string]corev1.Node{}, Leases: map[string]coordinationv1.Lease{}}
	if data, err := os.ReadFile(a.file); err == nil {
		if err := json.Unmarshal(data, &state); err != nil {
			return nil, err
		}
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/storageclasses"):
		if who := r.TLS.PeerCertificates[0].Subject.CommonName; who != "admin" {
			return nil, fmt.Errorf("%s may not offer storage", who)
		}
		return storagev1.StorageClass{TypeMeta: metav1.TypeMeta{Kind: "StorageClass", APIVersion: "storage.k8s.io/v1"}}, nil
	case r.Method == http.MethodPost:
		var node corev1.Node
		if err := json.NewDecoder(r.Body).Decode(&node); err != nil {
			return nil, err
		}
		if want := "system:node:" + node.Name; r.TLS.PeerCertificates[0].Subject.CommonName != want {
			return nil, fmt.Errorf("you are not %s", want)
		}
		state.Nodes[node.Name] = node
		now := metav1.NowMicro()
		state.Leases[node.Name] = coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: node.Name}, Spec: coordinationv1.LeaseSpec{RenewTime: &now}}
		return struct{}{}, writeJSON(a.file, state)
	case strings.HasSuffix(r.URL.Path, "/leases"):
		list := coordinationv1.LeaseList{TypeMeta: metav1.TypeMeta{Kind: "LeaseList", APIVersion: "coordination.k8s.io/v1"}}
		for _, l := range state.Leases {
			list.Items = append(list.Items, l)
		}
		return list, nil
	default:
		list := corev1.NodeList{TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"}}
		for _, n := range state.Nodes {
			list.Items = append(list.Items, n)
		}
		return list, nil
	}
}

// standInKubelet checks that the node is what its configuration says, tells
// the API server that it is ready, and answers /ping on the kubelet's port.
func standInKubelet(args []string) error {
	flags := flag.NewFlagSet("kubelet", flag.ContinueOnError)
	file := flags.String("config", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cfg, err := nodeconfig.Read(*file)
	if err != nil {
		return err
	}
	if host, err := os.Hostname(); err != nil || host != cfg.NodeName {
		return fmt.Errorf("hostname %q (%w), want %q", host, err, cfg.NodeName)
	}
	socket, err := net.Dial("unix", cfg.RuntimeEndpoint[len("unix://"):])
	if err != nil {
		return err
	}
	socket.Close()
	ca, err := os.ReadFile(cfg.ClientCAFile)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return errors.New("no certificate in the authority's file")
	}
	pair, err := tls.LoadX509KeyPair(cfg.ServingCertFile, cfg.ServingKeyFile)
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", net.JoinHostPort(cfg.NodeIP.String(), "10250"), &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		return err
	}
	for err := register(cfg); err != nil; err = register(cfg) {
		fmt.Println(err)
		time.Sleep(20 * time.Millisecond)
	}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, cfg.NodeName) }))
}

func register(cfg *nodeconfig.Kubelet) error {
	rc, err := clientcmd.BuildConfigFromFlags("", cfg.Kubeconfig)
	if err != nil {
		return err
	}
	rc.Timeout = 2 * time.Second
	client, err := rest.HTTPClientFor(rc)
	if err != nil {
		return err
	}
	node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: cfg.NodeName, Labels: cfg.NodeLabels}}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	data, err := json.Marshal(node)
	if err != nil {
		return err
	}
	resp, err := client.Post(rc.Host+"/api/v1/nodes", "application/json", bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("register: %s: %s", resp.Status, body)
	}
	return nil
}
