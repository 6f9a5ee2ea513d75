package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// laneBare is the project's server without audit log, priority and fairness,
// and encryption. It stands in no table of its own.
const laneBare = "bare"

// safetyGoal is how many times the figures without those are allowed with them.
const safetyGoal = 1.15

// safe are the flags that turn all three on: an audit log by the default policy,
// and Secrets encrypted, as in a cluster with an embedded etcd.
func (l *lab) safe() ([]string, error) {
	dir, err := l.folder("safe")
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "encryption.yaml")
	config := `{"apiVersion":"apiserver.config.k8s.io/v1","kind":"EncryptionConfiguration","resources":[{"resources":["secrets"],` +
		`"providers":[{"aesgcm":{"keys":[{"name":"bench","secret":"` + base64.StdEncoding.EncodeToString(secret) + `"}]}},{"identity":{}}]}]}`
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	return []string{"--audit-log-path", filepath.Join(dir, "audit.log"), "--encryption-provider-config", file}, nil
}

// safety measures the project's server with and without audit log, priority and
// fairness, and encryption, in turn.
func (l *lab) safety(ctx context.Context, r *report) error {
	s := section{Title: "With audit log, priority and fairness and encryption on, to without: CPU of the server per operation"}
	for _, one := range []struct {
		kind   *kind
		stored int
	}{{pods(), 4600}, {configMaps(), 1400}, {secrets(), 1400}} {
		p, err := l.safetyPhase(ctx, one.kind, one.stored)
		if err != nil {
			return err
		}
		for round := range 2 * l.rounds {
			fmt.Fprintf(l.log, "  round %d\n", round+1)
			if err := p.crud(ctx, round); err != nil {
				return err
			}
			for _, ln := range p.lanes {
				if err := p.burst(ctx, ln); err != nil {
					return fmt.Errorf("%s: %s: %w", rowSafety, ln.name, err)
				}
			}
			slices.Reverse(p.lanes) // who comes first pays for what both need
		}
		if err := p.memory(ctx); err != nil {
			return err
		}
		p.safetyLines(&s)
		if err := l.stopAll(); err != nil {
			return err
		}
	}
	r.Sections = append(r.Sections, s)
	return nil
}

func (l *lab) safetyPhase(ctx context.Context, k *kind, stored int) (*phase, error) {
	p := &phase{lab: l, title: "safety, " + k.name, all: true, samples: map[string]map[string][]sample{}, figures: map[string]map[string][]float64{}}
	fmt.Fprintf(l.log, "%s: starting the servers\n", p.title)
	safe, err := l.safe()
	if err != nil {
		return nil, err
	}
	for _, one := range []struct {
		lane string
		args []string
	}{{laneOurs, safe}, {laneBare, []string{"--audit-log-path", "none", "--enable-priority-and-fairness=false"}}} {
		own := *k // what makes it as large as it shall be is the lane's own
		ln, err := l.oursWith(ctx, one.lane, &own, one.args...)
		if err != nil {
			return nil, err
		}
		if err := ln.connect(l.id, connections); err != nil {
			return nil, err
		}
		if err := l.prepare(ctx, ln, stored, l.objects); err != nil {
			return nil, err
		}
		p.lanes = append(p.lanes, ln)
	}
	return p, nil
}

// safetyLines adds what was measured of one kind.
func (p *phase) safetyLines(s *section) {
	for _, g := range requestGoals {
		if samples, ok := p.samples[g.row]; ok {
			s.Lines = append(s.Lines, safetyLine(p.lanes[0].kind.name+", "+g.name, "us", samples, sample.perOp))
		}
	}
	s.Lines = append(s.Lines,
		safetyLine(p.lanes[0].kind.name+", watch with its patches", "us", p.figures[rowWatch], same),
		safetyLine(p.lanes[0].kind.name+", anonymous memory", "MiB", p.figures[rowMemory], same))
}

// safetyLine sets what was measured with against what was measured without in
// the same round, one right after the other: what else the machine does changes
// from round to round.
func safetyLine[T any](name, unit string, of map[string][]T, value func(T) float64) line {
	var ratios []float64
	for i := range min(len(of[laneOurs]), len(of[laneBare])) {
		ratios = append(ratios, value(of[laneOurs][i])/value(of[laneBare][i]))
	}
	m := medians(of, value)
	return line{
		Name: fmt.Sprintf("%s: %s to %s %s", name, figure(m[laneOurs]), figure(m[laneBare]), unit),
		Unit: "times", AtMost: safetyGoal, Values: map[string]float64{laneOurs: median(ratios)},
	}
}
