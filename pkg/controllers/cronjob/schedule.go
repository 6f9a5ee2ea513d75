package cronjob

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
)

// parse reads the schedule of c. A schedule without a time zone goes by the
// zone of the times that it is asked about.
func parse(c *batchv1.CronJob) (cron.Schedule, error) {
	text := c.Spec.Schedule
	if strings.Contains(text, "TZ") {
		return nil, errors.New("the schedule names a time zone: use timeZone instead")
	}
	schedule, err := cron.ParseStandard(text)
	if err != nil {
		return nil, err
	}
	if fields, ok := schedule.(*cron.SpecSchedule); ok && c.Spec.TimeZone != nil {
		if fields.Location, err = time.LoadLocation(*c.Spec.TimeZone); err != nil {
			return nil, fmt.Errorf("time zone: %w", err)
		}
	}
	return schedule, nil
}

// errNever is the error of a schedule that names no day there is, such as the
// 31st of February.
var errNever = errors.New("it names no time within five years")

// recent returns the last time of the schedule that is after since and not
// after now, or the zero time, and the first after now.
func recent(schedule cron.Schedule, since, now time.Time) (last, next time.Time, err error) {
	since = since.In(now.Location())
	if every, ok := schedule.(cron.ConstantDelaySchedule); ok {
		first := every.Next(since)
		if first.After(now) {
			return time.Time{}, first, nil
		}
		last = first.Add(now.Sub(first) / every.Delay * every.Delay)
		return last, last.Add(every.Delay), nil
	}
	if next = schedule.Next(now); next.IsZero() {
		return time.Time{}, time.Time{}, errNever
	}
	first := schedule.Next(since)
	if first.IsZero() || first.After(now) {
		return time.Time{}, next, nil
	}
	// The times after any moment are the same whatever came before, so the last
	// is where the search for "the first after" begins to pass now.
	before, after := since, now
	for after.Sub(before) > time.Second {
		middle := before.Add(after.Sub(before) / 2)
		if t := schedule.Next(middle); t.IsZero() || t.After(now) {
			after = middle
		} else {
			before, first = middle, t
		}
	}
	return first, next, nil
}

// many is the number of missed starts that users are warned of.
const many = 100

// missesMany reports whether more than many starts lie between since and now.
func missesMany(schedule cron.Schedule, since, now time.Time) bool {
	t := since.In(now.Location())
	for range many + 1 {
		if t = schedule.Next(t); t.IsZero() || t.After(now) {
			return false
		}
	}
	return true
}
