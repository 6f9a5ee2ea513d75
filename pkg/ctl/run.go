package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// running is one run of run.
type running struct {
	*tool
	create      *creating
	image       string
	restart     string
	pullPolicy  string
	env         []string
	labels      string
	annotations []string
	port        int32
	expose      bool
	command     bool
	stdin, tty  bool
	attach      bool
	remove      bool
	quiet       bool
	privileged  bool
	timeout     time.Duration
}

func (t *tool) run() *cobra.Command {
	o := &running{tool: t, create: &creating{tool: t}}
	cmd := &cobra.Command{
		Use:   "run NAME --image=IMAGE [-- ARG...]",
		Short: "Run an image in a new pod",
		Example: "  ctl run hello --image=busybox --restart=Never -- echo hello\n" +
			"  ctl run shell --image=busybox -it --rm -- sh\n  ctl run web --image=nginx --port=80 --expose",
		Args: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); len(args) == 0 || dash == 0 || dash > 1 {
				return usagef("name the pod first, then the command after --, for example: ctl run hello --image=busybox -- echo hello")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("attach") {
				o.attach = o.stdin
			}
			return o.run(cmd.Context(), args[0], args[1:])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.image, "image", "", "image to run")
	f.StringVar(&o.restart, "restart", "Always", "when containers are started again: Always, OnFailure, Never")
	f.StringVar(&o.pullPolicy, "image-pull-policy", "", "Always, IfNotPresent or Never")
	f.StringArrayVar(&o.env, "env", nil, "environment variable, as NAME=VALUE")
	f.StringVarP(&o.labels, "labels", "l", "", "labels, as a=b,c=d; run=NAME when empty")
	f.StringArrayVar(&o.annotations, "annotations", nil, "annotation, as name=value")
	f.Int32Var(&o.port, "port", 0, "port that the container listens on")
	f.BoolVar(&o.expose, "expose", false, "make a Service of the same name for --port")
	f.BoolVar(&o.command, "command", false, "what follows -- replaces the image's entrypoint, not only its arguments")
	f.BoolVarP(&o.stdin, "stdin", "i", false, "keep the container's input open, and pass the input on")
	f.BoolVarP(&o.tty, "tty", "t", false, "the container gets a terminal")
	f.BoolVar(&o.attach, "attach", false, "connect to the container when it runs (on with -i)")
	f.BoolVar(&o.remove, "rm", false, "delete the pod at the end (with -i or --attach)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print the container's output alone")
	f.BoolVar(&o.privileged, "privileged", false, "run the container privileged")
	f.DurationVar(&o.timeout, "pod-running-timeout", podTimeout, "how long to wait for the container to run")
	addDryRun(cmd, &o.create.dry)
	o.create.printing = newPrinting(cmd)
	_ = cmd.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions([]string{"Always", "OnFailure", "Never"}, noFiles))
	return cmd
}

func (o *running) run(ctx context.Context, name string, args []string) error {
	if o.image == "" {
		return usagef("give the image with --image=IMAGE")
	}
	if o.remove && !o.attach {
		return usagef("--rm needs -i or --attach: without them ctl does not wait for the end")
	}
	if o.attach && o.create.dry != dryNone {
		return usagef("--dry-run goes with neither -i nor --attach")
	}
	if o.expose && o.port == 0 {
		return usagef("--expose needs the port that the container listens on: --port=PORT")
	}
	ns, _, err := o.namespace()
	if err != nil {
		return err
	}
	pod, err := o.pod(ns, name, args)
	if err != nil {
		return err
	}
	quiet := o.attach && !o.create.printing.structured()
	if quiet {
		return o.session(ctx, ns, pod)
	}
	if _, err := o.create.sendAs(ctx, ns, pod, "created"); err != nil {
		return err
	}
	if o.expose {
		return o.create.send(ctx, ns, o.service(pod))
	}
	return nil
}

// pod makes the pod of the flags.
func (o *running) pod(ns, name string, args []string) (*corev1.Pod, error) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns, Labels: map[string]string{"run": name}}}
	if o.labels != "" {
		set, err := pairs(strings.Split(o.labels, ","), "label")
		if err != nil {
			return nil, err
		}
		pod.Labels = set
	}
	if len(o.annotations) > 0 {
		set, err := pairs(o.annotations, "annotation")
		if err != nil {
			return nil, err
		}
		pod.Annotations = set
	}
	switch o.restart {
	case "Always", "OnFailure", "Never":
		pod.Spec.RestartPolicy = corev1.RestartPolicy(o.restart)
	default:
		return nil, usagef("--restart=%s is not known: use Always, OnFailure or Never", o.restart)
	}
	c := corev1.Container{
		Name: name, Image: o.image, ImagePullPolicy: corev1.PullPolicy(o.pullPolicy),
		Stdin: o.stdin, StdinOnce: o.stdin && o.attach, TTY: o.tty,
	}
	for _, e := range o.env {
		k, v, ok := strings.Cut(e, "=")
		if !ok || k == "" {
			return nil, usagef("--env %q is not of the form NAME=VALUE", e)
		}
		c.Env = append(c.Env, corev1.EnvVar{Name: k, Value: v})
	}
	if o.command {
		c.Command = args
	} else {
		c.Args = args
	}
	if o.port > 0 {
		c.Ports = []corev1.ContainerPort{{ContainerPort: o.port}}
	}
	if o.privileged {
		c.SecurityContext = &corev1.SecurityContext{Privileged: &o.privileged}
	}
	pod.Spec.Containers = []corev1.Container{c}
	return pod, nil
}

func (o *running) service(pod *corev1.Pod) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace},
		Spec: corev1.ServiceSpec{Selector: pod.Labels, Ports: []corev1.ServicePort{{
			Port: o.port, Protocol: corev1.ProtocolTCP,
		}}},
	}
}

// session creates the pod, connects to it, and returns its exit code.
func (o *running) session(ctx context.Context, ns string, pod *corev1.Pod) (err error) {
	client, err := o.client()
	if err != nil {
		return err
	}
	made, err := client.CoreV1().Pods(ns).Create(ctx, pod, metav1.CreateOptions{FieldManager: managerCreate})
	if err != nil {
		return err
	}
	if o.expose {
		if err := o.create.send(ctx, ns, o.service(made)); err != nil {
			return err
		}
	}
	if o.remove {
		defer func() { err = errors.Join(err, o.cleanUp(ctx, made)) }()
	}
	name := made.Name
	now, err := o.awaitPod(ctx, made, o.timeout, func(p *corev1.Pod) (bool, error) {
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			return true, nil
		}
		return containerRuns(p, name)
	})
	if err != nil {
		return err
	}
	c := o.console(o.stdin, o.tty)
	if now.Status.Phase != corev1.PodRunning {
		// It was faster than the connection: what it printed is in the log.
		if err := o.copyLog(ctx, now, &corev1.PodLogOptions{Container: name}, "", o.Out); err != nil {
			return err
		}
		return exitOf(now, name)
	}
	if c.tty && !o.quiet {
		fmt.Fprintln(o.Err, "If there is no prompt, press Enter.")
	}
	seen := &counter{w: o.Out}
	c.out = seen
	if attachErr := o.attachTo(ctx, now, name, c); (attachErr != nil || seen.n == 0) && ctx.Err() == nil {
		if err := o.missed(ctx, now, name); err != nil && attachErr != nil {
			return fmt.Errorf("connect to the container: %w", attachErr)
		}
	}
	if o.restart == "Always" {
		// The container is started again, so its exit code says nothing.
		if !o.quiet && !o.remove {
			fmt.Fprintf(o.Err, "Session ended; the pod goes on. Resume with: ctl attach %s -c %s -i -t\n", name, name)
		}
		return nil
	}
	last, err := o.awaitPod(ctx, made, o.timeout, func(p *corev1.Pod) (bool, error) { return ended(p, name), nil })
	if err != nil {
		return err
	}
	return exitOf(last, name)
}

// missedTimeout is how long the status of a container may lag behind its end.
const missedTimeout = 5 * time.Second

// counter counts what passes.
type counter struct {
	w io.Writer
	n int64
}

// Write passes p on.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// missed prints the log of a container that ended, or printed all it had,
// before the connection was there. It is an error when the container goes on.
func (o *running) missed(ctx context.Context, pod *corev1.Pod, name string) error {
	_, err := o.awaitPod(ctx, pod, missedTimeout, func(p *corev1.Pod) (bool, error) { return ended(p, name), nil })
	if err != nil {
		return err
	}
	return o.copyLog(ctx, pod, &corev1.PodLogOptions{Container: name}, "", o.Out)
}

// cleanUp deletes the pod of --rm, after an interruption too.
func (o *running) cleanUp(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	client, err := o.client()
	if err != nil {
		return err
	}
	err = client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("pod %s was not deleted: %w", pod.Name, err)
	}
	if !o.quiet {
		fmt.Fprintf(o.Out, "pod %q deleted from namespace %s\n", pod.Name, pod.Namespace)
	}
	return nil
}

// ended says whether the container, or its pod, has ended.
func ended(p *corev1.Pod, name string) bool {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return true
	}
	return slices.ContainsFunc(p.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.Name == name && (s.State.Terminated != nil || s.LastTerminationState.Terminated != nil)
	})
}

// exitOf makes the exit code of a container the exit code of ctl.
func exitOf(p *corev1.Pod, name string) error {
	for _, s := range p.Status.ContainerStatuses {
		state := s.State.Terminated
		if state == nil {
			state = s.LastTerminationState.Terminated
		}
		if s.Name != name || state == nil || state.ExitCode == 0 {
			continue
		}
		return &exitError{code: int(state.ExitCode), err: fmt.Errorf("pod %s ended with exit code %d (%s)", p.Name, state.ExitCode, state.Reason)}
	}
	return nil
}
