package controllers_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
)

// script is a piece of a controller's life, which the enumerator runs once
// undisturbed and then once for each fault. A new controller adds an entry to
// scripts.
type script struct {
	name string
	// objects makes what is there before; nil for nothing.
	objects func(c *cluster)
	// steps each change something and wait until it has come true, which may
	// take faultPatience. They fail when what must hold does not.
	steps []func(c *cluster)
	// pods is how many pods there may ever be in default; 0 to not count.
	pods int
	// start runs what the script is about; nil for all controllers.
	start func(c *cluster, via transports) (stop func())
}

const (
	// faultPatience is how soon each step must come true in spite of a fault.
	faultPatience = 30 * time.Second
	// quietTime is how long nobody may write anything after the last step.
	quietTime = 2 * time.Minute
	// blindTime is how long watches are cut off to hide what lives shorter.
	blindTime = 3 * time.Second
	// crashPoints is how many writes of each script there is a crash at, unless
	// CONTROLLERS_FAULTS=all asks for every one.
	crashPoints = 4
)

// TestFaults runs every script with every fault.
func TestFaults(t *testing.T) {
	for _, s := range scripts() {
		t.Run(s.name, func(t *testing.T) {
			writes := 0
			if !t.Run("undisturbed", func(t *testing.T) {
				bubble(t, func(t *testing.T, c *cluster) { writes = s.runUndisturbed(c) })
			}) {
				return
			}
			if writes == 0 {
				t.Fatal("nothing was written: the script tests no controller")
			}
			for _, f := range s.faults(writes, everyPoint()) {
				t.Run(f.String(), func(t *testing.T) {
					bubble(t, func(t *testing.T, c *cluster) { f.run(c) })
				})
			}
		})
	}
}

// fault is one way to disturb a script.
type fault struct {
	class string // what kind of fault it is
	point string // where it is put; empty if there is but one
	run   func(c *cluster)
}

func (f fault) String() string { return strings.TrimSpace(f.class + " " + f.point) }

// The classes of faults.
const (
	lateEchoes    = "late echo"
	lateOwners    = "late echo of all but pods"
	hiddenObjects = "hidden objects"
	crashes       = "crash"
	staleRestarts = "stale restart"
)

// faults are the disturbances of a script that writes so often when nothing
// disturbs it; with every, there is a crash at each write.
func (s *script) faults(writes int, every bool) []fault {
	late := func(which func(string) bool) func(*cluster) {
		return func(c *cluster) {
			k := newCrasher(0, false)
			c.t.Cleanup(s.begin(c, transports{write: k.wrap, read: lateSome(time.Second, which)}))
			s.run(c, k, s.pods)
		}
	}
	out := []fault{
		{class: lateEchoes, run: late(func(string) bool { return true })},
		{class: lateOwners, run: late(func(resource string) bool { return resource != "pods" })},
		{class: hiddenObjects, run: s.runBlind},
	}
	for i, at := range points(writes, every) {
		for _, after := range []bool{false, true} {
			if every || after == (i%2 == 0) {
				out = append(out, fault{crashes, fmt.Sprintf("at write %d, done %v", at, after), func(c *cluster) { s.runCrash(c, at, after, false) }})
			}
		}
		if every || i == crashPoints/2 {
			out = append(out, fault{staleRestarts, fmt.Sprintf("after write %d", at), func(c *cluster) { s.runCrash(c, at, true, true) }})
		}
	}
	return out
}

func everyPoint() bool { return os.Getenv("CONTROLLERS_FAULTS") == "all" }

// points are the writes to crash at: every, or some of them from first to last.
func points(writes int, every bool) []int {
	n := crashPoints
	switch {
	case every:
		n = writes
	case testing.Short():
		n = 1
	}
	n = min(n, writes)
	var out []int
	for i := range n {
		out = append(out, 1+i*writes/n)
	}
	return out
}

func newCrasher(at int, after bool) *crasher {
	return &crasher{at: at, after: after, count: unarmed}
}

// unarmed is so low that no write before arm counts.
const unarmed = -1 << 40

// arm counts writes from now.
func (c *crasher) arm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count = 0
}

// written returns how many writes there were since arm.
func (c *crasher) written() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// begin starts the controllers that the script is about.
func (s *script) begin(c *cluster, via transports) (stop func()) {
	if s.start != nil {
		return s.start(c, via)
	}
	return c.startControllers(via)
}

// runUndisturbed returns how many writes there are.
func (s *script) runUndisturbed(c *cluster) int {
	k := newCrasher(0, false)
	c.t.Cleanup(s.begin(c, transports{write: k.wrap}))
	return s.run(c, k, s.pods)
}

// run runs the steps against controllers that write through k, checks what
// must hold at the end of every script, and returns the number of writes.
func (s *script) run(c *cluster, k *crasher, pods int) int {
	c.t.Helper()
	time.Sleep(15 * time.Second) // the controllers furnish the cluster
	if s.objects != nil {
		s.objects(c)
	}
	k.arm()
	c.patience = faultPatience
	made := c.countPods()
	for _, step := range s.steps {
		step(c)
	}
	writes := k.written()
	time.Sleep(faultPatience)
	before := c.versions()
	time.Sleep(quietTime)
	if after := c.versions(); !maps.Equal(before, after) {
		c.t.Errorf("there is no rest: what was\n%v is\n%v", before, after)
	}
	if n := made(); pods > 0 && n != pods {
		c.t.Errorf("%d pods were made, want %d", n, pods)
	}
	c.wantNoLeaks()
	return writes
}

// runBlind cuts all watches off for a while before each step and hides what is
// made and deleted meanwhile.
func (s *script) runBlind(c *cluster) {
	k, b := newCrasher(0, false), newBlinder()
	c.t.Cleanup(s.begin(c, transports{write: k.wrap, read: b.wrap}))
	blind := *s
	blind.steps = nil
	for _, step := range s.steps {
		blind.steps = append(blind.steps, func(c *cluster) {
			b.close()
			open := time.AfterFunc(blindTime, b.open)
			defer open.Stop()
			defer b.open()
			c.makeGhosts()
			step(c)
		})
	}
	blind.run(c, k, 0) // the ghosts count as pods
}

// makeGhosts makes objects that match what scripts select, and deletes them at
// once.
func (c *cluster) makeGhosts() {
	c.t.Helper()
	for _, app := range []string{"web", "db", "agent"} {
		ghost := podLike("ghost-"+app, app)
		if _, err := c.Client.CoreV1().Pods("default").Create(c.t.Context(), ghost, metav1.CreateOptions{}); err != nil {
			c.t.Fatal(err)
		}
		if err := c.Client.CoreV1().Pods("default").Delete(c.t.Context(), ghost.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
			c.t.Fatal(err)
		}
	}
}

// runCrash kills the controllers at one write and starts others; if stale, the
// others see for a while the state that was there some seconds before.
func (s *script) runCrash(c *cluster, at int, after, stale bool) {
	crashed, over, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	k, rec := newCrasher(at, after), newRecording()
	k.crash = sync.OnceFunc(func() { close(crashed) })
	first, second := transports{write: k.wrap}, transports{}
	if stale {
		first.read, second.read = rec.record, rec.replay
	}
	stop := s.begin(c, first)
	go func() {
		defer close(ended)
		select {
		case <-crashed:
			stop()
			rec.cut = time.Now().Add(-staleness)
			stop = s.begin(c, second)
		case <-over:
		}
		<-over
		stop()
	}()
	c.t.Cleanup(func() { close(over); <-ended })
	pods := s.pods
	if stale {
		pods = 0 // one who sees no pods makes some; what counts is the end
	}
	c.stale = stale
	s.run(c, k, pods)
	select {
	case <-crashed:
	default:
		// The number of writes varies a little with the order of events.
		if at == 1 {
			c.t.Error("nothing was written")
		}
	}
}

// blinder cuts watches off while it is closed; who watched must list again.
type blinder struct {
	mu     sync.Mutex
	shut   chan struct{}   // closed when it opens again; nil while open; guarded by mu
	cut    []func()        // end the watches under way; guarded by mu
	missed map[string]bool // paths that have to list again; guarded by mu
}

func newBlinder() *blinder { return &blinder{missed: map[string]bool{}} }

func (b *blinder) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shut = make(chan struct{})
	for _, end := range b.cut {
		end()
	}
	b.cut = nil
}

func (b *blinder) open() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut != nil {
		close(b.shut)
		b.shut = nil
	}
}

func (b *blinder) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		q := r.URL.Query()
		if q.Get("watch") == "" {
			return next.RoundTrip(r)
		}
		b.mu.Lock()
		shut := b.shut
		b.mu.Unlock()
		if shut != nil {
			select {
			case <-shut:
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
			if q.Get("sendInitialEvents") == "" {
				return gone(r), nil
			}
		}
		ctx, cancel := context.WithCancel(r.Context())
		b.mu.Lock()
		b.cut = append(b.cut, cancel)
		b.mu.Unlock()
		return next.RoundTrip(r.WithContext(ctx))
	})
}

// versions are the resourceVersions of what scripts are about. Leases and
// Events are not: those may change for ever.
func (c *cluster) versions() map[string]string {
	c.t.Helper()
	out := map[string]string{}
	for _, o := range c.all() {
		out[fmt.Sprintf("%s %s/%s", o.Kind, o.Namespace, o.Name)] = o.ResourceVersion
	}
	return out
}

// wantNoLeaks checks that everything's owners are there and nothing waits to
// be deleted.
func (c *cluster) wantNoLeaks() {
	c.t.Helper()
	all := c.all()
	living := map[types.UID]bool{}
	for _, o := range all {
		living[o.UID] = true
	}
	for _, o := range all {
		if o.DeletionTimestamp != nil {
			c.t.Errorf("%s %s/%s is still being deleted, for %v", o.Kind, o.Namespace, o.Name, o.Finalizers)
		}
		for _, ref := range o.OwnerReferences {
			if !living[ref.UID] {
				c.t.Errorf("%s %s/%s is left by its owner %s %s", o.Kind, o.Namespace, o.Name, ref.Kind, ref.Name)
			}
		}
	}
}

// kindsOfScripts are the resources that scripts are about.
var kindsOfScripts = strings.Fields(`v1/namespaces v1/pods v1/services v1/endpoints v1/persistentvolumes v1/persistentvolumeclaims
	v1/replicationcontrollers v1/resourcequotas v1/configmaps v1/secrets apps/v1/deployments apps/v1/replicasets apps/v1/statefulsets
	apps/v1/daemonsets apps/v1/controllerrevisions batch/v1/jobs batch/v1/cronjobs discovery.k8s.io/v1/endpointslices
	policy/v1/poddisruptionbudgets storage.k8s.io/v1/volumeattachments storage.k8s.io/v1/volumeattributesclasses
	v1/nodes v1/serviceaccounts autoscaling/v2/horizontalpodautoscalers rbac.authorization.k8s.io/v1/clusterroles
	resource.k8s.io/v1/resourceclaims storagemigration.k8s.io/v1/storageversionmigrations scheduling.k8s.io/v1beta1/podgroups
	certificates.k8s.io/v1/certificatesigningrequests certificates.k8s.io/v1/podcertificaterequests
	networking.k8s.io/v1/servicecidrs networking.k8s.io/v1/ipaddresses resource.k8s.io/v1/devicetaintrules`)

func (c *cluster) all() []metav1.PartialObjectMetadata {
	c.t.Helper()
	client := metadata.NewForConfigOrDie(c.Admin())
	var out []metav1.PartialObjectMetadata
	for _, k := range kindsOfScripts {
		i := strings.LastIndex(k, "/")
		gv, err := schema.ParseGroupVersion(k[:i])
		if err != nil {
			c.t.Fatal(err)
		}
		list, err := client.Resource(gv.WithResource(k[i+1:])).List(c.t.Context(), metav1.ListOptions{})
		if err != nil {
			c.t.Fatal(err)
		}
		for _, o := range list.Items {
			o.Kind = k[i+1:]
			out = append(out, o)
		}
	}
	return out
}
