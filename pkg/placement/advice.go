package placement

import (
	"fmt"
	"strings"
)

// advise says, for each group of nodes, what would do away with what they were
// refused for. The reasons are in the words of FailedScheduling events.
func advise(refusals []Refusal) []string {
	var out []string
	for i := range refusals {
		r := &refusals[i]
		var steps []string
		for _, reason := range r.Reasons {
			steps = append(steps, r.step(reason))
		}
		out = append(out, strings.Join(steps, ", and "))
	}
	return out
}

// step is what would do away with one reason.
func (r *Refusal) step(reason string) string {
	some := r.some()
	taint, tainted := strings.CutPrefix(reason, "node(s) had untolerated taint")
	resource, short := strings.CutPrefix(reason, "Insufficient ")
	switch {
	case tainted:
		taint = strings.TrimPrefix(strings.TrimSpace(taint), "(s)")
		return fmt.Sprintf("add a toleration of taint %s to the pod, or remove the taint from %s", strings.TrimSpace(taint), some)
	case short && r.lack(resource) != "":
		return fmt.Sprintf("free %s %s on %s, or have the pod request as much less", r.lack(resource), resource, some)
	case short:
		return fmt.Sprintf("free %s on %s, or have the pod request less of it", resource, some)
	}
	if how, known := r.known(reason, some); known {
		return how
	}
	if r.Nodes == 0 {
		return fmt.Sprintf("%s refuses the pod whatever the node (%s): change what the pod asks for", r.Plugin, reason)
	}
	return fmt.Sprintf("change what %s refuses on %s: %s", r.Plugin, some, reason)
}

// known is the step for the reasons that are fixed sentences.
func (r *Refusal) known(reason, some string) (string, bool) {
	switch reason {
	case "Too many pods":
		return "remove a pod from " + some, true
	case "node(s) were unschedulable":
		if len(r.Examples) > 0 {
			return fmt.Sprintf("uncordon %s (ctl uncordon %s)", some, r.Examples[0]), true
		}
		return "uncordon " + some, true
	case "node(s) didn't match Pod's node affinity/selector":
		return fmt.Sprintf("give %s the labels that the pod's node selector and node affinity ask for, or change those", some), true
	case "node(s) didn't match the requested node name":
		return "remove spec.nodeName from the pod, or add the node of that name", true
	case "node(s) didn't have free ports for the requested pod ports":
		return fmt.Sprintf("free the pod's host ports on %s, or use others", some), true
	case "node(s) didn't match pod affinity rules":
		return fmt.Sprintf("start a pod that the pod's required affinity selects in the topology domain of %s, or change the affinity", some), true
	case "node(s) didn't match pod anti-affinity rules":
		return fmt.Sprintf("move the pods that the pod's required anti-affinity selects away from the topology domain of %s, or add a node in another domain", some), true
	case "node(s) didn't satisfy existing pods anti-affinity rules":
		return fmt.Sprintf("move the pods whose required anti-affinity selects this pod away from the topology domain of %s", some), true
	case "node(s) didn't match pod topology spread constraints":
		return fmt.Sprintf("even out the pods among the topology domains, raise maxSkew, or make room in the emptiest domain (not %s)", some), true
	case "node(s) didn't match pod topology spread constraints (missing required label)":
		return fmt.Sprintf("give %s the labels that the constraints name as topologyKey", some), true
	}
	return "", false
}

// lack is how much of a resource is missing where the least is.
func (r *Refusal) lack(resource string) string {
	for _, l := range r.Lacks {
		if l.Resource == resource {
			return l.Amount
		}
	}
	return ""
}

// some names the nodes of which one is enough.
func (r *Refusal) some() string {
	switch {
	case r.Nodes == 0:
		return "a node"
	case r.Nodes == 1 && len(r.Examples) == 1:
		return "node " + r.Examples[0]
	case len(r.Examples) == r.Nodes:
		return fmt.Sprintf("one of %d nodes (%s)", r.Nodes, strings.Join(r.Examples, ", "))
	case len(r.Examples) > 0:
		return fmt.Sprintf("one of %d nodes (%s, ...)", r.Nodes, strings.Join(r.Examples, ", "))
	}
	return fmt.Sprintf("one of %d nodes", r.Nodes)
}
