package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// logging is one run of logs.
type logging struct {
	*tool
	container     string
	allContainers bool
	allPods       bool
	follow        bool
	previous      bool
	timestamps    bool
	prefix        bool
	since         time.Duration
	sinceTime     string
	tail          int64
	limit         int64
	labels        string
	maxStreams    int
	ignoreErrors  bool
	timeout       time.Duration
}

func (t *tool) logs() *cobra.Command {
	o := &logging{tool: t}
	cmd := &cobra.Command{
		Use:               "logs POD|TYPE/NAME [-c CONTAINER] | -l SELECTOR",
		Short:             "Print what containers have printed",
		Example:           "  ctl logs web-0\n  ctl logs -f deploy/web --tail=20\n  ctl logs -l app=web --all-containers --prefix",
		Args:              between(0, 2, "one pod, or TYPE/NAME, and possibly a container"),
		ValidArgsFunction: t.completeNames("pods", "deployments"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("tail") && o.labels != "" {
				o.tail = 10
			}
			return o.run(cmd.Context(), args)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.container, "container", "c", "", "container; the first one when empty")
	f.BoolVar(&o.allContainers, "all-containers", false, "all containers of the pod")
	f.BoolVar(&o.allPods, "all-pods", false, "all pods of TYPE/NAME, with --prefix")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with what is printed from now on")
	f.BoolVarP(&o.previous, "previous", "p", false, "of the container before the last restart")
	f.BoolVar(&o.timestamps, "timestamps", false, "begin each line with its time")
	f.BoolVar(&o.prefix, "prefix", false, "begin each line with the pod and the container")
	f.DurationVar(&o.since, "since", 0, "only what is younger, for example 5m")
	f.StringVar(&o.sinceTime, "since-time", "", "only what was printed after this time (RFC 3339)")
	f.Int64Var(&o.tail, "tail", -1, "only the last lines; -1 for all (10 with -l)")
	f.Int64Var(&o.limit, "limit-bytes", 0, "at most this many bytes; 0 for all")
	f.StringVarP(&o.labels, "selector", "l", "", "of all pods with these labels")
	f.IntVar(&o.maxStreams, "max-log-requests", 5, "how many logs may be followed at once")
	f.BoolVar(&o.ignoreErrors, "ignore-errors", false, "go on when one of the logs cannot be read")
	f.DurationVar(&o.timeout, "pod-running-timeout", 20*time.Second, "how long to wait for the container to start")
	_ = cmd.RegisterFlagCompletionFunc("container", t.completeContainers)
	return cmd
}

func (o *logging) run(ctx context.Context, args []string) error {
	opts, err := o.options()
	if err != nil {
		return err
	}
	if len(args) == 2 {
		if o.container != "" {
			return usagef("the container is given twice: %s and -c %s", args[1], o.container)
		}
		o.container = args[1]
	}
	pods, err := o.pods(ctx, args)
	if err != nil {
		return err
	}
	sources, err := o.sources(pods)
	if err != nil {
		return err
	}
	if len(sources) == 1 {
		return o.one(ctx, sources[0], opts, &sync.Mutex{})
	}
	if o.follow && len(sources) > o.maxStreams {
		return fmt.Errorf("%d logs would be followed, more than the %d of --max-log-requests: raise it, or select fewer pods", len(sources), o.maxStreams)
	}
	var mu sync.Mutex // one line at a time
	g, gctx := errgroup.WithContext(ctx)
	if !o.follow {
		g.SetLimit(1) // one log after the other
	}
	for _, s := range sources {
		g.Go(func() error {
			err := o.one(gctx, s, opts, &mu)
			if err != nil && o.ignoreErrors {
				fmt.Fprintf(o.Err, "Warning: %s: %s\n", s, o.explain(err))
				return nil
			}
			return err
		})
	}
	return g.Wait()
}

func (o *logging) options() (*corev1.PodLogOptions, error) {
	opts := &corev1.PodLogOptions{Follow: o.follow, Previous: o.previous, Timestamps: o.timestamps}
	if o.since > 0 && o.sinceTime != "" {
		return nil, usagef("give --since or --since-time, not both")
	}
	if o.since > 0 {
		seconds := int64((o.since + time.Second - 1) / time.Second)
		opts.SinceSeconds = &seconds
	}
	if o.sinceTime != "" {
		at, err := time.Parse(time.RFC3339, o.sinceTime)
		if err != nil {
			return nil, usagef("--since-time=%s is no time like 2026-01-31T12:00:00Z", o.sinceTime)
		}
		opts.SinceTime = &metav1.Time{Time: at}
	}
	if o.tail >= 0 {
		opts.TailLines = &o.tail
	}
	if o.limit > 0 {
		opts.LimitBytes = &o.limit
	}
	return opts, nil
}

// pods finds the pods that are meant.
func (o *logging) pods(ctx context.Context, args []string) ([]corev1.Pod, error) {
	if o.labels != "" {
		if len(args) > 0 {
			return nil, usagef("name a pod or give -l, not both")
		}
		ns, _, err := o.namespace()
		if err != nil {
			return nil, err
		}
		pods, err := o.listPods(ctx, ns, o.labels)
		if err == nil && len(pods) == 0 {
			fmt.Fprintf(o.Err, "No resources found in %s namespace.\n", ns)
		}
		return pods, err
	}
	if len(args) == 0 {
		return nil, usagef("name a pod, or select pods with -l")
	}
	tg, err := o.podsOf(ctx, args[0])
	if err != nil {
		return nil, err
	}
	if o.allPods {
		o.prefix = true
		return tg.pods, nil
	}
	if len(tg.pods) > 1 {
		fmt.Fprintf(o.Err, "Found %d pods, using pod/%s\n", len(tg.pods), tg.pods[0].Name)
	}
	return tg.pods[:1], nil
}

// source is one log.
type source struct {
	pod       *corev1.Pod
	container string
}

func (s source) String() string { return fmt.Sprintf("[pod/%s/%s]", s.pod.Name, s.container) }

func (o *logging) sources(pods []corev1.Pod) ([]source, error) {
	var out []source
	for i := range pods {
		p := &pods[i]
		if !o.allContainers {
			name, err := o.containerOf(p, o.container, o.labels != "")
			if err != nil {
				return nil, err
			}
			out = append(out, source{p, name})
			continue
		}
		for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
			out = append(out, source{p, c.Name})
		}
		for _, c := range p.Spec.EphemeralContainers {
			out = append(out, source{p, c.Name})
		}
	}
	return out, nil
}

// one prints one log, line by line under mu.
func (o *logging) one(ctx context.Context, s source, opts *corev1.PodLogOptions, mu *sync.Mutex) error {
	own := *opts
	own.Container = s.container
	pod := s.pod
	if o.follow && !started(pod, s.container) {
		var err error
		if pod, err = o.awaitPod(ctx, pod, o.timeout, func(p *corev1.Pod) (bool, error) { return started(p, s.container), nil }); err != nil {
			return err
		}
	}
	prefix := ""
	if o.prefix {
		prefix = s.String() + " "
	}
	return o.copyLog(ctx, pod, &own, prefix, lockedWriter{mu, o.Out})
}

// started says whether a container has printed, or could have.
func started(p *corev1.Pod, name string) bool {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses) {
		if s.Name == name {
			return s.State.Waiting == nil || s.LastTerminationState.Terminated != nil
		}
	}
	return false
}

// lockedWriter writes under a lock that several streams share.
type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

// Write writes p in one piece.
func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// copyLog copies a container's log to out, in whole lines with the prefix.
func (t *tool) copyLog(ctx context.Context, pod *corev1.Pod, opts *corev1.PodLogOptions, prefix string, out io.Writer) error {
	client, err := t.client()
	if err != nil {
		return err
	}
	in, err := client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, opts).Stream(ctx)
	if err != nil {
		return err
	}
	defer in.Close()
	r := bufio.NewReaderSize(in, 64<<10)
	begin := true
	for {
		line, err := r.ReadSlice('\n')
		if len(line) > 0 {
			if begin && prefix != "" {
				line = append([]byte(prefix), line...)
			}
			begin = line[len(line)-1] == '\n'
			if _, writeErr := out.Write(line); writeErr != nil {
				return writeErr
			}
		}
		switch {
		case err == nil || errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) || ctx.Err() != nil:
			return nil
		default:
			return fmt.Errorf("the log of %s broke off: %w", pod.Name, err)
		}
	}
}
