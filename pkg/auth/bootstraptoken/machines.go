package bootstraptoken

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Keys of the Secret by which a token is for certain machines. Other tools'
// tokens have none of them, and let in any number until they end.
const (
	keyMachines = "coracle.dev.machines" // how many
	keyNode     = "coracle.dev.node"     // the only node that may be joined as
	keyJoined   = "coracle.dev.joined"   // those that have, one in a line
)

// MaxMachines bounds the machines of a token that counts them.
const MaxMachines = 1000

// Machine is who asked for a node's certificate: the node's name and the
// fingerprint of the key, which does not leave the machine.
type Machine struct{ Node, Key string }

// Limits say whom a token lets in. The zero value is everybody.
type Limits struct {
	// Machines is how many, 0 for any number.
	Machines int
	// Node is the only node that may be joined as; empty for any.
	Node string
}

// parseLimits reads those of a Secret and the machines that it has let in.
func parseLimits(s *corev1.Secret) (l Limits, joined []Machine, err error) {
	l.Node = string(s.Data[keyNode])
	if text, ok := s.Data[keyMachines]; ok {
		if l.Machines, err = strconv.Atoi(string(text)); err != nil || l.Machines < 1 || l.Machines > MaxMachines {
			return l, nil, fmt.Errorf("%s must be a number from 1 to %d", keyMachines, MaxMachines)
		}
	}
	for line := range strings.Lines(string(s.Data[keyJoined])) {
		node, key, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok || node == "" || key == "" || len(joined) >= MaxMachines {
			return l, nil, fmt.Errorf("%s must have the name of a node and the fingerprint of a key in each line", keyJoined)
		}
		joined = append(joined, Machine{node, key})
	}
	return l, joined, nil
}

// Errors of LetIn.
var (
	errOtherNode = errors.New("this token is for another node")
	errUsed      = errors.New("this token has let in as many machines as it is for: make another with \"ctl token create\"")
)

// LimitsOf reads the limits of the token of a Secret.
func LimitsOf(s *corev1.Secret) (Limits, error) {
	l, _, err := parseLimits(s)
	return l, err
}

// LetIn says whether the token of a Secret is for a machine, and notes it in s,
// which is then to be stored. A machine that was let in stays so. fallback counts
// for a token that does not say how many machines it is for.
func LetIn(s *corev1.Secret, m Machine, fallback int) error {
	l, joined, err := parseLimits(s)
	if err != nil {
		return err
	}
	if l.Machines == 0 {
		l.Machines = fallback
	}
	switch {
	case l.Node != "" && l.Node != m.Node:
		return errOtherNode
	case l.Machines == 0 || slices.Contains(joined, m):
		return nil
	case len(joined) >= l.Machines:
		return errUsed
	case strings.ContainsAny(m.Node+m.Key, " \n") || m.Node == "" || m.Key == "":
		return fmt.Errorf("%q is no name of a node", m.Node)
	case slices.ContainsFunc(joined, func(j Machine) bool { return j.Node == m.Node }):
		return fmt.Errorf("another machine has joined as the node %q with this token", m.Node)
	}
	text := string(s.Data[keyJoined])
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	s.Data[keyJoined] = []byte(text + m.Node + " " + m.Key + "\n")
	return nil
}
