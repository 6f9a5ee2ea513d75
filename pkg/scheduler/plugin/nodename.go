package plugin

// NodeName keeps a pod that names its node to that node.
type NodeName struct{}

// Name implements Filter.
func (NodeName) Name() string { return "NodeName" }

// Check implements Filter.
func (NodeName) Check(p *Pod, n *Node) string {
	if p.NodeName != "" && p.NodeName != n.Name {
		return "node(s) didn't match the requested node name"
	}
	return ""
}
