package resource

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// lifecycle checks the hooks and probes of a container that stays up.
func (c *podChecker) lifecycle(path *field.Path, ctr *corev1.Container) field.ErrorList {
	var errs field.ErrorList
	if l := ctr.Lifecycle; l != nil {
		p := path.Child("lifecycle")
		errs = append(errs, c.hook(p.Child("postStart"), l.PostStart)...)
		errs = append(errs, c.hook(p.Child("preStop"), l.PreStop)...)
		errs = append(errs, c.stopSignal(p.Child("stopSignal"), l.StopSignal)...)
	}
	errs = append(errs, checkProbe(path.Child("livenessProbe"), ctr.LivenessProbe, true)...)
	errs = append(errs, checkProbe(path.Child("startupProbe"), ctr.StartupProbe, true)...)
	errs = append(errs, checkProbe(path.Child("readinessProbe"), ctr.ReadinessProbe, false)...)
	if r := ctr.ReadinessProbe; r != nil && r.TerminationGracePeriodSeconds != nil {
		errs = append(errs, field.Invalid(path.Child("readinessProbe", "terminationGracePeriodSeconds"),
			*r.TerminationGracePeriodSeconds, "must not be set for readinessProbes"))
	}
	return errs
}

// checkProbe: a probe whose failure kills needs exactly one success to pass.
func checkProbe(path *field.Path, probe *corev1.Probe, kills bool) field.ErrorList {
	if probe == nil {
		return nil
	}
	errs := checkHandler(path, &handler{
		exec: probe.Exec, get: probe.HTTPGet, tcp: probe.TCPSocket, grpc: probe.GRPC})
	for _, n := range []struct {
		name  string
		value int32
	}{
		{"initialDelaySeconds", probe.InitialDelaySeconds}, {"timeoutSeconds", probe.TimeoutSeconds},
		{"periodSeconds", probe.PeriodSeconds}, {"successThreshold", probe.SuccessThreshold},
		{"failureThreshold", probe.FailureThreshold},
	} {
		errs = append(errs, checkNotNegative(path.Child(n.name), n.value)...)
	}
	if s := probe.TerminationGracePeriodSeconds; s != nil && *s <= 0 {
		errs = append(errs, field.Invalid(path.Child("terminationGracePeriodSeconds"), *s, "must be greater than 0"))
	}
	if kills && probe.SuccessThreshold != 1 {
		errs = append(errs, field.Invalid(path.Child("successThreshold"), probe.SuccessThreshold, "must be 1"))
	}
	return errs
}

// stopSignals are the signals of each system. Their names are the API's.
var stopSignals = map[corev1.OSName][]corev1.Signal{
	corev1.Windows: {corev1.SIGKILL, corev1.SIGTERM},
	corev1.Linux: {
		corev1.SIGABRT, corev1.SIGALRM, corev1.SIGBUS, corev1.SIGCHLD, corev1.SIGCLD, corev1.SIGCONT, corev1.SIGFPE,
		corev1.SIGHUP, corev1.SIGILL, corev1.SIGINT, corev1.SIGIO, corev1.SIGIOT, corev1.SIGKILL, corev1.SIGPIPE,
		corev1.SIGPOLL, corev1.SIGPROF, corev1.SIGPWR, corev1.SIGQUIT, corev1.SIGSEGV, corev1.SIGSTKFLT, corev1.SIGSTOP,
		corev1.SIGSYS, corev1.SIGTERM, corev1.SIGTRAP, corev1.SIGTSTP, corev1.SIGTTIN, corev1.SIGTTOU, corev1.SIGURG,
		corev1.SIGUSR1, corev1.SIGUSR2, corev1.SIGVTALRM, corev1.SIGWINCH, corev1.SIGXCPU, corev1.SIGXFSZ,
		corev1.SIGRTMIN, corev1.SIGRTMINPLUS1, corev1.SIGRTMINPLUS2, corev1.SIGRTMINPLUS3, corev1.SIGRTMINPLUS4,
		corev1.SIGRTMINPLUS5, corev1.SIGRTMINPLUS6, corev1.SIGRTMINPLUS7, corev1.SIGRTMINPLUS8, corev1.SIGRTMINPLUS9,
		corev1.SIGRTMINPLUS10, corev1.SIGRTMINPLUS11, corev1.SIGRTMINPLUS12, corev1.SIGRTMINPLUS13,
		corev1.SIGRTMINPLUS14, corev1.SIGRTMINPLUS15, corev1.SIGRTMAXMINUS14, corev1.SIGRTMAXMINUS13,
		corev1.SIGRTMAXMINUS12, corev1.SIGRTMAXMINUS11, corev1.SIGRTMAXMINUS10, corev1.SIGRTMAXMINUS9,
		corev1.SIGRTMAXMINUS8, corev1.SIGRTMAXMINUS7, corev1.SIGRTMAXMINUS6, corev1.SIGRTMAXMINUS5,
		corev1.SIGRTMAXMINUS4, corev1.SIGRTMAXMINUS3, corev1.SIGRTMAXMINUS2, corev1.SIGRTMAXMINUS1, corev1.SIGRTMAX,
	},
}

// stopSignal: which signals there are depends on the system, so it must be
// named.
func (c *podChecker) stopSignal(path *field.Path, signal *corev1.Signal) field.ErrorList {
	if signal == nil {
		return nil
	}
	if c.spec.OS == nil || c.spec.OS.Name == "" {
		return field.ErrorList{field.Forbidden(path, "may not be set for containers with empty `spec.os.name`")}
	}
	return checkOptional(path, signal, stopSignals[c.spec.OS.Name]...)
}

func (c *podChecker) hook(path *field.Path, h *corev1.LifecycleHandler) field.ErrorList {
	if h == nil {
		return nil
	}
	errs := checkHandler(path, &handler{exec: h.Exec, get: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep})
	if grace := c.spec.TerminationGracePeriodSeconds; h.Sleep != nil && grace != nil &&
		(h.Sleep.Seconds < 0 || h.Sleep.Seconds > *grace) {
		errs = append(errs, field.Invalid(path.Child("sleep"), h.Sleep.Seconds,
			fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace)))
	}
	return errs
}

// handler is the union of what probes and hooks can do.
type handler struct {
	exec  *corev1.ExecAction
	get   *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

// checkHandler wants exactly one action.
func checkHandler(path *field.Path, h *handler) field.ErrorList {
	var errs field.ErrorList
	n := 0
	add := func(name string, check func(*field.Path) field.ErrorList) {
		if n++; n > 1 {
			errs = append(errs, field.Forbidden(path.Child(name), "may not specify more than 1 handler type"))
			return
		}
		errs = append(errs, check(path.Child(name))...)
	}
	if h.exec != nil {
		add("exec", func(p *field.Path) field.ErrorList {
			if len(h.exec.Command) == 0 {
				return field.ErrorList{field.Required(p.Child("command"), "")}
			}
			return nil
		})
	}
	if h.get != nil {
		add("httpGet", func(p *field.Path) field.ErrorList { return checkHTTPGet(p, h.get) })
	}
	if h.tcp != nil {
		add("tcpSocket", func(p *field.Path) field.ErrorList { return checkPortRef(p.Child("port"), h.tcp.Port) })
	}
	if h.grpc != nil {
		add("grpc", func(p *field.Path) field.ErrorList {
			return append(checkPortRef(p.Child("port"), intstr.FromInt32(h.grpc.Port)),
				checkOptional(p.Child("mode"), h.grpc.Mode, corev1.GRPCProbeModePlaintext, corev1.GRPCProbeModeTLS)...)
		})
	}
	if h.sleep != nil {
		add("sleep", func(*field.Path) field.ErrorList { return nil })
	}
	if n == 0 {
		errs = append(errs, field.Required(path, "must specify a handler type"))
	}
	return errs
}

func checkHTTPGet(path *field.Path, get *corev1.HTTPGetAction) field.ErrorList {
	var errs field.ErrorList
	if get.Path == "" {
		errs = append(errs, field.Required(path.Child("path"), ""))
	}
	errs = append(errs, checkPortRef(path.Child("port"), get.Port)...)
	errs = append(errs, checkSet(path.Child("scheme"), get.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)...)
	errs = append(errs, checkOptional(path.Child("protocol"), get.Protocol, corev1.HTTPProtocolHTTP1, corev1.HTTPProtocolHTTP2)...)
	if get.Protocol != nil && *get.Protocol == corev1.HTTPProtocolHTTP2 && get.Scheme != corev1.URISchemeHTTP {
		errs = append(errs, field.Invalid(path.Child("protocol"), *get.Protocol, "HTTP2 must be used with scheme HTTP"))
	}
	for _, h := range get.HTTPHeaders {
		errs = append(errs, invalid(path.Child("httpHeaders"), h.Name, utilvalidation.IsHTTPHeaderName(h.Name))...)
	}
	return errs
}
