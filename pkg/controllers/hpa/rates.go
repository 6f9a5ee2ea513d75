package hpa

import (
	"math"
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// stabilization is how long a lower recommendation waits, where behavior does
// not say.
const stabilization = 5 * time.Minute

// history is what an autoscaler remembers of the time before: it is lost with
// the process, after which the first recommendation is the present size.
type history struct {
	recommended []moment
	ups, downs  []moment // by how much the target was scaled
}

// moment is a number of replicas at a time.
type moment struct {
	replicas int32
	at       time.Time
}

// begin makes the present size the first recommendation.
func (h *history) begin(current int32, now time.Time) {
	if len(h.recommended) == 0 {
		h.recommended = []moment{{current, now}}
	}
}

// recommend notes a recommendation and forgets what is older than the window.
func (h *history) recommend(n int32, window time.Duration, now time.Time) {
	h.recommended = append(forget(h.recommended, window, now), moment{n, now})
}

// scaled notes that the target went from one size to another, and forgets what
// no policy looks back at.
func (h *history) scaled(b *autoscalingv2.HorizontalPodAutoscalerBehavior, from, to int32, now time.Time) {
	if b == nil {
		return
	}
	var longest time.Duration
	for _, rules := range []*autoscalingv2.HPAScalingRules{b.ScaleUp, b.ScaleDown} {
		if rules != nil {
			for _, p := range rules.Policies {
				longest = max(longest, seconds(p.PeriodSeconds))
			}
		}
	}
	h.ups, h.downs = forget(h.ups, longest, now), forget(h.downs, longest, now)
	if to > from {
		h.ups = append(h.ups, moment{to - from, now})
	} else {
		h.downs = append(h.downs, moment{from - to, now})
	}
}

func seconds(n int32) time.Duration { return time.Duration(n) * time.Second }

func forget(list []moment, window time.Duration, now time.Time) []moment {
	return slices.DeleteFunc(list, func(m moment) bool { return m.at.Before(now.Add(-window)) })
}

// limits are what a recommendation has to keep to.
type limits struct {
	current, min, max int32
	behavior          *autoscalingv2.HorizontalPodAutoscalerBehavior
	now               time.Time
}

// outcome is a number of replicas, whether it differs from what was asked, and
// the condition that says why.
type outcome struct {
	replicas        int32
	changed         bool
	reason, message string
}

// stabilize is the least change that recent recommendations allow, and notes
// the new one.
func (h *history) stabilize(want int32, l limits) outcome {
	up, down := time.Duration(0), stabilization
	if l.behavior != nil {
		up, down = windowOf(l.behavior.ScaleUp, 0), windowOf(l.behavior.ScaleDown, stabilization)
	}
	low, high := want, want
	for _, m := range h.recommended {
		age := l.now.Sub(m.at)
		if age < up {
			low = min(low, m.replicas)
		}
		if age < down || l.behavior == nil && age == down {
			high = max(high, m.replicas)
		}
	}
	n := min(max(l.current, low), high)
	if l.behavior == nil {
		n = high // nothing holds a rise back
	}
	h.recommend(want, max(up, down), l.now)
	switch {
	case n == want:
		return outcome{n, false, "ReadyForNewScale", "recommended size matches current size"}
	case l.behavior != nil && want >= l.current:
		return outcome{n, true, "ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation"}
	}
	return outcome{n, true, "ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation"}
}

func windowOf(r *autoscalingv2.HPAScalingRules, otherwise time.Duration) time.Duration {
	if r == nil || r.StabilizationWindowSeconds == nil {
		return otherwise
	}
	return seconds(*r.StabilizationWindowSeconds)
}

// limit keeps a number of replicas to the bounds and the rates.
func (h *history) limit(want int32, l limits) outcome {
	const (
		fast = "the desired replica count is increasing faster than the maximum scale rate"
		slow = "the desired replica count is decreasing faster than the maximum scale rate"
		many = "the desired replica count is more than the maximum replica count"
		few  = "the desired replica count is less than the minimum replica count"
	)
	top := int32(math.MaxInt32)
	switch {
	case l.behavior == nil:
		top = max(count(2*float64(l.current)), 4)
	case want > l.current:
		top = max(h.upTo(l.current, l.behavior.ScaleUp, l.now), l.current)
	}
	bottom := int32(0)
	if l.behavior != nil && want < l.current {
		bottom = min(h.downTo(l.current, l.behavior.ScaleDown, l.now), l.current)
	}
	switch {
	case want < l.min && l.min >= bottom:
		return outcome{l.min, true, "TooFewReplicas", few}
	case want < bottom:
		return outcome{bottom, true, "ScaleDownLimit", slow}
	case want > top && top < l.max:
		return outcome{top, true, "ScaleUpLimit", fast}
	case want > l.max:
		return outcome{l.max, true, "TooManyReplicas", many}
	}
	return outcome{want, false, "DesiredWithinRange", "the desired count is within the acceptable range"}
}

// upTo is the size up to which the rules let the target grow now.
func (h *history) upTo(current int32, r *autoscalingv2.HPAScalingRules, now time.Time) int32 {
	return h.reach(current, r, now, func(start int32, p *autoscalingv2.HPAScalingPolicy) int32 {
		if p.Type == autoscalingv2.PodsScalingPolicy {
			return clamp(int64(start) + int64(p.Value))
		}
		// Rounded up, or a small target would never grow.
		return count(float64(start) * (1 + float64(p.Value)/100))
	}, 1)
}

// downTo is the size down to which the rules let the target shrink now.
func (h *history) downTo(current int32, r *autoscalingv2.HPAScalingRules, now time.Time) int32 {
	return h.reach(current, r, now, func(start int32, p *autoscalingv2.HPAScalingPolicy) int32 {
		if p.Type == autoscalingv2.PodsScalingPolicy {
			return clamp(int64(start) - int64(p.Value))
		}
		return int32(float64(start) * (1 - float64(p.Value)/100))
	}, -1)
}

// reach asks each policy how far the target may go from where it was at the
// beginning of the policy's period, and chooses. direction is 1 for more pods
// and -1 for fewer.
func (h *history) reach(current int32, r *autoscalingv2.HPAScalingRules, now time.Time, far func(start int32, p *autoscalingv2.HPAScalingPolicy) int32, direction int64) int32 {
	if r == nil || len(r.Policies) == 0 {
		return clamp(direction * math.MaxInt32)
	}
	choose := autoscalingv2.MaxChangePolicySelect
	if r.SelectPolicy != nil {
		choose = *r.SelectPolicy
	}
	if choose == autoscalingv2.DisabledPolicySelect {
		return current
	}
	var out int32
	for i := range r.Policies {
		p := &r.Policies[i]
		start := clamp(int64(current) - within(h.ups, p.PeriodSeconds, now) + within(h.downs, p.PeriodSeconds, now))
		n := far(start, p)
		further := direction*int64(n) > direction*int64(out)
		if i == 0 || further == (choose == autoscalingv2.MaxChangePolicySelect) {
			out = n
		}
	}
	return out
}

// within adds up the changes of the last seconds.
func within(list []moment, period int32, now time.Time) int64 {
	var total int64
	for _, m := range list {
		if m.at.After(now.Add(-seconds(period))) {
			total += int64(m.replicas)
		}
	}
	return total
}

func clamp(n int64) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }
