//go:build e2e

package e2e

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	imagename "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"coracle/pkg/image"
)

// tourManifest is applied from a web server, from standard input and from its
// folder.
//
//go:embed testdata/tour.yaml
var tourManifest string

// listenerManifest is a pod that repeats the line it is told.
const listenerManifest = `apiVersion: v1
kind: Pod
metadata: {name: listener}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: busybox, stdin: true, stdinOnce: true, command: [sh, -c, 'read line; echo heard $line']}
`

// line is one command and what its output has to contain.
type line struct {
	args string // separated by blanks
	want string // a regular expression; empty for anything
}

// follow runs lines in order.
func (s *suite) follow(program string, lines []line) {
	s.t.Helper()
	for _, l := range lines {
		out, err := s.program("", program, strings.Fields(l.args)...)
		if err != nil {
			s.t.Fatalf("%s %s: %v\n%s", program, l.args, err, out)
		}
		if !regexp.MustCompile(l.want).MatchString(out) {
			s.t.Errorf("%s %s: no %q in\n%s", program, l.args, l.want, out)
		}
	}
}

// tour types every verb of the tool once against the real cluster.
func (s *suite) tour() {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, tourManifest) }))
	defer web.Close()
	const folder = "e2e/testdata"
	s.follow("ctl", []line{
		{"version", "v1.37"},
		{"cluster-info", "https://"},
		{"api-resources", "deployments +deploy +apps/v1"},
		{"cluster list", "e2e +running"},
		{"cluster node list e2e", "e2e-3 +running"},
		{"run hello --image=busybox --restart=Never -- echo hello", "created"},
		{"wait pod/hello --for=jsonpath={.status.phase}=Succeeded --timeout=60s", "hello"},
		{"logs hello -f", "^hello\n$"},
		{"apply -f " + web.URL + "/tour.yaml", "(?s)deployment.*tour.*service.*tour"},
		{"apply -f " + folder, "tour"},
		{"rollout status deployment/tour --timeout=60s", "successfully rolled out"},
		{"get deployment tour -o wide", "2/2"},
		{"get pods -l app=tour -o name", "pod/tour-"},
		{"get pods -l app=tour -o jsonpath={.items[0].status.phase}", "Running"},
		{"get pods -o custom-columns=NAME:.metadata.name,NODE:.spec.nodeName", "tour-.* +e2e-"},
		{"get endpointslices -o yaml", "addressType: IPv4"},
		{"describe deployment tour", "ScalingReplicaSet"},
		{"scale deployment/tour --replicas=3", "scaled"},
		{"rollout status deployment/tour --timeout=60s", "successfully rolled out"},
		{"exec first -- wget -q -O - http://tour.default.svc.cluster.local", "^tour-"},
		{"image ls --cluster e2e", "busybox.* 3/3 "},
		{"image load --cluster e2e bin/images/busybox.tar", "had all of them already"},
	})
	s.stdin()
	s.terminal()
	s.portForward()
	s.imagePull()
	s.follow("ctl", []line{
		{"delete -f " + folder, "deleted"},
		{"delete pod hello", "deleted"},
	})
}

// stdin applies from a pipe and talks to a container through one.
func (s *suite) stdin() {
	// The tool scaled it meanwhile, and takes that back only when told to.
	if out, err := s.program(tourManifest, "ctl", "apply", "-f", "-"); err == nil || !strings.Contains(out, "--force-conflicts") {
		s.t.Errorf("applying over a scaling: %v\n%s", err, out)
	}
	if out, err := s.program(tourManifest, "ctl", "apply", "--force-conflicts", "-f", "-"); err != nil || !strings.Contains(out, "tour") {
		s.t.Errorf("apply -f -: %v\n%s", err, out)
	}
	if out, err := s.program("through the pipe", "ctl", "exec", "-i", "first", "--", "cat"); err != nil || !strings.Contains(out, "through the pipe") {
		s.t.Errorf("exec -i: %v\n%s", err, out)
	}
	if out, err := s.program(listenerManifest, "ctl", "apply", "-f", "-"); err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
	s.eventually("the listener runs", time.Minute, s.running("default", "listener"))
	out, err := s.program("a word\n", "ctl", "attach", "-i", "listener")
	if err != nil {
		s.t.Errorf("attach -i: %v\n%s", err, out)
	}
	s.follow("ctl", []line{
		{"wait pod/listener --for=jsonpath={.status.phase}=Succeeded --timeout=60s", "listener"},
		{"logs listener", "heard a word"},
		{"delete pod listener", "deleted"},
	})
}

// terminal runs a command with a terminal on both sides.
func (s *suite) terminal() {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	ctl := filepath.Join(s.root, "bin", "ctl")
	out, err := s.start(ctx, "", "script", "-qec", ctl+" exec -it first -- tty", "/dev/null")
	if err != nil || !strings.Contains(out, "/dev/pts/") {
		s.t.Errorf("exec -it in a terminal: %v\n%s", err, out)
	}
}

// portForward reaches the service from the host through the API server.
func (s *suite) portForward() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	port := s.freePort()
	go func() {
		defer close(done)
		_, _ = s.start(ctx, "", filepath.Join(s.root, "bin", "ctl"), "port-forward", "service/tour", port+":80")
	}()
	s.eventually("the service answers through a forwarded port", 30*time.Second, func(context.Context) error {
		resp, err := httpClient().Get("http://127.0.0.1:" + port)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	cancel()
	<-done
}

// freePort is one that nobody listens on right now.
func (s *suite) freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		s.t.Fatal(err)
	}
	return port
}

// imagePull fetches an image from a registry of this host into the nodes.
func (s *suite) imagePull() {
	server := httptest.NewServer(registry.New())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	ref, err := imagename.ParseReference(host+"/tools/box:1", imagename.Insecure)
	if err != nil {
		s.t.Fatal(err)
	}
	archive, err := image.Open(filepath.Join(s.root, "bin", "images", "busybox.tar"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer archive.Close()
	if err := remote.Write(ref, archive.Images[0].Image); err != nil {
		s.t.Fatal(err)
	}
	s.follow("ctl", []line{
		{"image pull --cluster e2e --plain-http " + ref.Name(), "loaded into 3 nodes"},
		{"run pulled --image=" + ref.Name() + " --restart=Never -- echo from the registry", "created"},
		{"wait pod/pulled --for=jsonpath={.status.phase}=Succeeded --timeout=60s", "pulled"},
		{"logs pulled", "from the registry"},
		{"delete pod pulled", "deleted"},
		// What nobody loaded says so, and what to do.
		{"run absent --image=registry.invalid/absent:1 --restart=Never", "created"},
		{"wait pod/absent --for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImagePull --timeout=60s", "absent"},
		{"describe pod absent", "ctl image pull"},
		{"delete pod absent --force", "deleted"},
	})
}
