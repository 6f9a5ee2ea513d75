package serviceaccounttoken

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var today = time.Date(2030, 6, 15, 12, 0, 0, 0, time.UTC)

func TestJudge(t *testing.T) {
	const used, invalid = "kubernetes.io/legacy-token-last-used", "kubernetes.io/legacy-token-invalid-since"
	old := today.AddDate(-3, 0, 0)
	for name, tc := range map[string]struct {
		made   time.Time
		labels map[string]string
		want   verdict
	}{
		"young":                          {today.AddDate(0, 0, -364), nil, keepIt},
		"never used":                     {old, nil, markIt},
		"used last month":                {old, map[string]string{used: "2030-05-15"}, keepIt},
		"used a year ago":                {old, map[string]string{used: "2029-06-15"}, keepIt},
		"used more than a year ago":      {old, map[string]string{used: "2029-06-14"}, markIt},
		"used on no day":                 {old, map[string]string{used: "yesterday"}, keepIt},
		"marked now":                     {old, map[string]string{invalid: "2030-06-15"}, keepIt},
		"marked a year ago":              {old, map[string]string{invalid: "2029-06-15"}, keepIt},
		"marked more than a year ago":    {old, map[string]string{invalid: "2029-06-14"}, deleteIt},
		"marked on no day":               {old, map[string]string{invalid: "yes"}, markIt},
		"marked long ago, used since":    {old, map[string]string{invalid: "2028-01-01", used: "2030-06-01"}, keepIt},
		"marked long ago, used long ago": {old, map[string]string{invalid: "2028-01-01", used: "2027-06-01"}, deleteIt},
	} {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(tc.made), Labels: tc.labels}}
		if got := judge(s, today); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
		s.DeletionTimestamp = &metav1.Time{Time: today}
		if got := judge(s, today); got != keepIt {
			t.Errorf("%s, being deleted: %d", name, got)
		}
	}
}

func TestTrackedLongEnough(t *testing.T) {
	for since, want := range map[string]bool{"": false, "x": false, "2030-06-15": false, "2029-06-15": false, "2029-06-14": true, "2020-01-01": true} {
		if got := trackedLongEnough(since, today); got != want {
			t.Errorf("since %q: %v, want %v", since, got, want)
		}
	}
}
