package plugin

// NodePorts keeps pods off nodes on which another pod has one of their host
// ports.
type NodePorts struct{}

// Name implements Plugin.
func (NodePorts) Name() string { return "NodePorts" }

// PreFilter implements Filter.
func (NodePorts) PreFilter(_ *Cluster, p *Pod) FilterPlan {
	if len(p.Shape.Ports) == 0 {
		return FilterPlan{}
	}
	return FilterPlan{Check: portCheck(p.Shape.Ports)}
}

type portCheck []Port

// Check implements Check.
func (c portCheck) Check(v *View) Verdict {
	for _, want := range c {
		for have := range v.Ports {
			if conflict(want, have) {
				return refuse(Unschedulable, []string{"node(s) didn't have free ports for the requested pod ports"})
			}
		}
	}
	return Verdict{}
}

// conflict says that two host ports cannot be on one node: same number and
// protocol, and either of them on all addresses or both on the same.
func conflict(a, b Port) bool {
	if a.Port != b.Port || a.Protocol != b.Protocol {
		return false
	}
	return anyIP(a.IP) || anyIP(b.IP) || a.IP == b.IP
}

func anyIP(ip string) bool { return ip == "" || ip == "0.0.0.0" }

// MayHelp implements Hinter.
func (NodePorts) MayHelp(p *Pod, e *Event) bool {
	switch e.Kind {
	case NodeAdded:
		return true
	case PodDeleted:
		for _, want := range p.Shape.Ports {
			for _, had := range e.OldPod.Shape.Ports {
				if conflict(want, had) {
					return true
				}
			}
		}
	}
	return false
}
