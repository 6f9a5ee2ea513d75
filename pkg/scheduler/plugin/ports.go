package plugin

// NodePorts keeps pods off nodes on which another pod has one of their host
// ports.
type NodePorts struct{}

// Name implements Filter.
func (NodePorts) Name() string { return "NodePorts" }

// Check implements Filter.
func (NodePorts) Check(p *Pod, n *Node) string {
	for _, want := range p.Ports {
		for have := range n.Ports {
			if conflict(want, have) {
				return "node(s) didn't have free ports for the requested pod ports"
			}
		}
	}
	return ""
}

// conflict says that two host ports cannot be on one node: same number and
// protocol, and either of them on all addresses or both on the same.
func conflict(a, b Port) bool {
	if a.Port != b.Port || a.Protocol != b.Protocol {
		return false
	}
	return anyIP(a.IP) || anyIP(b.IP) || a.IP == b.IP
}

func anyIP(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }
