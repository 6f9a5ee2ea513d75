package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"coracle/hack/report"
	"coracle/pkg/cluster"
)

const (
	// createTimeout and deleteTimeout bound one run of ctl.
	createTimeout = 3 * time.Minute
	deleteTimeout = 2 * time.Minute
	// podTimeout bounds the start or the end of a pod, or of a batch of pods.
	podTimeout = 2 * time.Minute
)

// lab is the cluster that is measured.
type lab struct {
	options
	kubeconfig string // a file of this run alone
	log        io.Writer

	made    bool // a cluster was begun and is not known to be gone
	client  kubernetes.Interface
	deletes []float64 // seconds each deletion took
	left    []string  // what deletions left behind
}

// newLab refuses a name that is in use: what this run did not make, it must not
// delete.
func newLab(ctx context.Context, o options, kubeconfig string, log io.Writer) (*lab, error) {
	l := &lab{options: o, kubeconfig: kubeconfig, log: log}
	for _, program := range []string{"ctl", "apiserver", "kubelet"} {
		if _, err := os.Stat(l.path(program)); err != nil {
			return nil, fmt.Errorf("there is no %s: build the programs with \"go build -o %s/ ./cmd/...\"", l.path(program), o.bin)
		}
	}
	if _, err := os.Stat(l.path("images/busybox.tar")); err != nil {
		return nil, fmt.Errorf("there is no %s: make the images with \"go run ./hack/images --out %s/images\"", l.path("images/busybox.tar"), o.bin)
	}
	left, err := l.leftovers(ctx)
	if err != nil {
		return nil, err
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("there is a cluster named %s, or what is left of one: choose another name with -cluster, or run \"%s cluster delete %[1]s\"", o.cluster, l.path("ctl"))
	}
	return l, nil
}

func (l *lab) path(name string) string { return filepath.Join(l.bin, name) }

func (l *lab) leftovers(ctx context.Context) ([]string, error) {
	return (&cluster.Machine{Kubeconfig: l.kubeconfig}).Leftovers(ctx, l.cluster)
}

// ctl runs a command in a process group of its own, so that an interrupt at the
// terminal reaches it once, from here.
func (l *lab) ctl(ctx context.Context, timeout time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, l.path("ctl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.kubeconfig)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute // it takes back what it has begun
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("ctl %s: %w\n%s", strings.Join(args, " "), errors.Join(ctx.Err(), err), out.String())
	}
	return out.String(), nil
}

// create makes the cluster and connects to it. It returns what ctl printed.
func (l *lab) create(ctx context.Context) (string, error) {
	l.made = true
	out, err := l.ctl(ctx, createTimeout, "cluster", "create", l.cluster, "--nodes", strconv.Itoa(l.nodes), "--images", l.path("images"))
	if err != nil {
		return "", err
	}
	config, err := clientcmd.BuildConfigFromFlags("", l.kubeconfig)
	if err != nil {
		return "", fmt.Errorf("read the new cluster's kubeconfig: %w", err)
	}
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	l.client, err = kubernetes.NewForConfig(config)
	return out, err
}

// delete removes the cluster and looks for what is left.
func (l *lab) delete(ctx context.Context) error {
	begin := time.Now()
	if _, err := l.ctl(ctx, deleteTimeout, "cluster", "delete", l.cluster); err != nil {
		return err
	}
	l.deletes = append(l.deletes, time.Since(begin).Seconds())
	l.made = false
	left, err := l.leftovers(ctx)
	l.left = append(l.left, left...)
	return err
}

// close deletes the cluster if it is still there, however the run ended.
func (l *lab) close(ctx context.Context) error {
	if !l.made {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	left, err := l.leftovers(ctx)
	if err == nil && len(left) == 0 {
		return nil // its creation failed and was taken back
	}
	fmt.Fprintln(l.log, "Deleting the cluster")
	return l.delete(ctx)
}

// stepLine is how ctl reports a finished step.
var stepLine = regexp.MustCompile(`^  (\S.*?)\s+(\d+\.\d+) s$`)

// stepTimes reads how long each step of a creation took, in order.
func stepTimes(out string) (names []string, took map[string]float64) {
	took = map[string]float64{}
	for sc := bufio.NewScanner(strings.NewReader(out)); sc.Scan(); {
		m := stepLine.FindStringSubmatch(sc.Text())
		if m == nil {
			continue
		}
		if v, err := strconv.ParseFloat(m[2], 64); err == nil {
			names = append(names, m[1])
			took[m[1]] = v
		}
	}
	return names, took
}

// measureClusters makes and deletes clusters and keeps the last.
func (l *lab) measureClusters(ctx context.Context, r *report.Report) error {
	var ready, first []float64
	var steps []string
	took := map[string][]float64{}
	for i := range l.runs {
		fmt.Fprintf(l.log, "Creating a cluster of %d nodes (%d of %d)\n", l.nodes, i+1, l.runs)
		begin := time.Now()
		out, err := l.create(ctx)
		if err != nil {
			return err
		}
		ready = append(ready, time.Since(begin).Seconds())
		if err := l.firstPod(ctx); err != nil {
			return err
		}
		first = append(first, time.Since(begin).Seconds())
		names, times := stepTimes(out)
		steps = names
		for name, t := range times {
			took[name] = append(took[name], t)
		}
		if i < l.runs-1 {
			if err := l.delete(ctx); err != nil {
				return err
			}
		}
	}
	part := fmt.Sprintf("Cluster start, %d nodes (median of %d)", l.nodes, l.runs)
	r.Add(report.Row{Part: part, Name: "ctl cluster create to all nodes Ready", Unit: "s", Value: report.Median(ready), Samples: ready},
		report.Row{Part: part, Name: "ctl cluster create to first pod Running", Unit: "s", Value: report.Median(first), Samples: first,
			Reference: report.Ptr(19.9), Source: "best published peer, to working DNS", Goal: report.Ptr(5)})
	for _, name := range steps {
		if v := report.Median(took[name]); v >= 0.01 {
			r.Add(report.Row{Part: part, Name: "- " + name, Unit: "s", Value: v, Samples: took[name]})
		}
	}
	return nil
}

// firstPod runs a pod as soon as the cluster takes one.
func (l *lab) firstPod(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, podTimeout)
	defer cancel()
	w, err := l.watchPods(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	if _, err := w.start(ctx, benchPod("first")); err != nil {
		return fmt.Errorf("the first pod: %w", err)
	}
	return w.remove(ctx, "first")
}

// cordon keeps new pods on one node by closing all others, so that the pods
// themselves need not ask for it.
func (l *lab) cordon(ctx context.Context, open string) error {
	for i := range l.nodes {
		name := fmt.Sprintf("%s-%d", l.cluster, i+1)
		patch := fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, name != open)
		if _, err := l.client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("cordon node %s: %w", name, err)
		}
	}
	return nil
}

// benchPod is the pod that is started: the smallest that stays.
func benchPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "bench-node"}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64),
			Containers:                    []corev1.Container{{Name: "main", Image: "busybox:1", Command: []string{"sleep", "1000000"}}},
		},
	}
}

// measureDelete deletes the last cluster and reports all deletions.
func (l *lab) measureDelete(ctx context.Context, r *report.Report) error {
	fmt.Fprintln(l.log, "Deleting the cluster")
	if err := l.delete(ctx); err != nil {
		return err
	}
	part := fmt.Sprintf("Cluster end (median of %d)", len(l.deletes))
	r.Add(report.Row{Part: part, Name: "ctl cluster delete", Unit: "s", Value: report.Median(l.deletes), Samples: l.deletes},
		report.Row{Part: part, Name: "things left behind", Unit: "", Value: float64(len(l.left)), Goal: report.Ptr(0)})
	for _, thing := range l.left {
		fmt.Fprintln(l.log, "left behind:", thing)
	}
	return nil
}

// notYet tells whether a new cluster does not take the pod yet: the default
// service account is made by a controller.
func notYet(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsNotFound(err) }
