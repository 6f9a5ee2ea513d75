package resource

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What is accepted, and most likely is not what was meant, is said in Warning
// headers.

// renamedNodeLabels are labels that nodes no longer carry in every cluster.
var renamedNodeLabels = map[string]string{
	"beta.kubernetes.io/arch":                  "kubernetes.io/arch",
	"beta.kubernetes.io/os":                    "kubernetes.io/os",
	"failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
	"failure-domain.beta.kubernetes.io/zone":   "topology.kubernetes.io/zone",
	"beta.kubernetes.io/instance-type":         "node.kubernetes.io/instance-type",
}

// renamedNodeLabelsSince are the releases that renamed them.
var renamedNodeLabelsSince = map[string]string{
	"beta.kubernetes.io/arch": "v1.14", "beta.kubernetes.io/os": "v1.14", "beta.kubernetes.io/instance-type": "v1.17",
	"failure-domain.beta.kubernetes.io/region": "v1.17", "failure-domain.beta.kubernetes.io/zone": "v1.17",
}

// podSpecWarnings are those of a pod or of a workload's template. Workloads
// ask for them when their spec has changed.
func podSpecWarnings(path *field.Path, spec *corev1.PodSpec) []string {
	var out []string
	warn := func(p *field.Path, format string, args ...any) {
		out = append(out, p.String()+": "+fmt.Sprintf(format, args...))
	}
	for _, key := range sortedKeys(spec.NodeSelector) {
		if now, ok := renamedNodeLabels[key]; ok {
			warn(path.Child("nodeSelector").Key(key), "deprecated since %s; use %q instead", renamedNodeLabelsSince[key], now)
		}
	}
	if s := spec.TerminationGracePeriodSeconds; s != nil && *s < 0 {
		warn(path.Child("terminationGracePeriodSeconds"), "must be >= 0; negative values are invalid and will be treated as 1")
	}
	for i := range spec.Volumes {
		if spec.Volumes[i].GitRepo != nil {
			warn(path.Child("volumes").Index(i).Child("gitRepo"), "deprecated in v1.11, and disabled by default in v1.33+")
		}
	}
	secrets := map[string]bool{}
	for i, ref := range spec.ImagePullSecrets {
		p := path.Child("imagePullSecrets").Index(i).Child("name")
		if ref.Name == "" {
			warn(p, "invalid empty name %q", ref.Name)
		} else if secrets[ref.Name] {
			warn(p, "duplicate name %q", ref.Name)
		}
		secrets[ref.Name] = true
	}
	for i := range spec.InitContainers {
		containerWarnings(path.Child("initContainers").Index(i), &spec.InitContainers[i], warn)
	}
	for i := range spec.Containers {
		containerWarnings(path.Child("containers").Index(i), &spec.Containers[i], warn)
	}
	return out
}

func containerWarnings(path *field.Path, c *corev1.Container, warn func(*field.Path, string, ...any)) {
	names := map[string]bool{}
	for i, e := range c.Env {
		// A value that refers to the earlier one is meant.
		if names[e.Name] && !strings.Contains(e.Value, "$("+e.Name+")") {
			warn(path.Child("env").Index(i), "hides previous definition of %q, which may be dropped when using apply", e.Name)
		}
		names[e.Name] = true
	}
	for _, l := range []struct {
		name string
		list corev1.ResourceList
	}{{"requests", c.Resources.Requests}, {"limits", c.Resources.Limits}} {
		for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
			if q, ok := l.list[name]; ok && q.MilliValue()%1000 != 0 {
				warn(path.Child("resources", l.name).Key(string(name)), "fractional byte value %q is invalid, must be an integer", q.String())
			}
		}
	}
	type port struct {
		protocol corev1.Protocol
		number   int32
	}
	ports := map[port]int{}
	for i, p := range c.Ports {
		key := port{p.Protocol, p.ContainerPort}
		if first, twice := ports[key]; twice {
			warn(path.Child("ports").Index(i), "duplicate port definition with %s", path.Child("ports").Index(first))
			continue
		}
		ports[key] = i
	}
}

func serviceWarnings(svc, old *corev1.Service) []string {
	var out []string
	spec, path := &svc.Spec, field.NewPath("spec")
	if spec.ClusterIP == corev1.ClusterIPNone {
		for _, f := range []struct {
			name string
			set  bool
		}{{"loadBalancerIP", spec.LoadBalancerIP != ""}, {"externalIPs", len(spec.ExternalIPs) > 0}} {
			if f.set {
				out = append(out, path.Child(f.name).String()+" is ignored when spec.clusterIP is \"None\"")
			}
		}
		if spec.SessionAffinity != corev1.ServiceAffinityNone {
			out = append(out, "spec.SessionAffinity is ignored for headless services")
		}
	}
	if len(spec.ExternalIPs) > 0 && (old == nil || len(old.Spec.ExternalIPs) == 0) {
		out = append(out, path.Child("externalIPs").String()+": deprecated; whoever may set it can intercept traffic to these addresses")
	}
	return out
}
