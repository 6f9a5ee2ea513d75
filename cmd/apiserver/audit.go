package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"coracle/pkg/audit"
)

// auditOptions are the flags of the audit log, named as kube-apiserver's.
type auditOptions struct {
	path, policy, format        string
	maxSize, maxAge, maxBackups int

	webhook audit.WebhookConfig
	// Modes, by their names: of the file, and of the webhook.
	mode, webhookMode string
}

const (
	// noAudit as a path writes no audit log.
	noAudit = "none"
	// toOutput as a path writes it to the standard output.
	toOutput = "-"
	// auditFormat is the one form of events: a line of JSON each.
	auditFormat = "json"
)

func (o *auditOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.path, "audit-log-path", "", "file of the audit log; empty is DIR/audit/audit.log where there is a --data-dir, "+noAudit+" writes none, and "+toOutput+" writes to the standard output")
	f.StringVar(&o.format, "audit-log-format", auditFormat, "form of the events; "+auditFormat+" is the only one")
	f.StringVar(&o.policy, "audit-policy-file", "", "audit.k8s.io/v1 Policy; by default changes and reads of secrets are recorded, without bodies")
	f.IntVar(&o.maxSize, "audit-log-maxsize", 100, "megabytes at which the audit log is put aside")
	f.IntVar(&o.maxAge, "audit-log-maxage", 30, "days after which audit logs put aside are deleted; 0 keeps them")
	f.StringVar(&o.webhook.Kubeconfig, "audit-webhook-config-file", "", "kubeconfig of a webhook to which the events are sent as well")
	const modes = ": batch makes no request wait, blocking makes all wait, and blocking-strict refuses those whose arrival cannot be recorded"
	f.StringVar(&o.mode, "audit-log-mode", string(audit.ModeBatch), "how events are written to the file"+modes)
	f.StringVar(&o.webhookMode, "audit-webhook-mode", string(audit.ModeBatch), "how events are sent to the webhook"+modes)
	f.IntVar(&o.webhook.Buffer, "audit-webhook-batch-buffer-size", 10000, "events that wait for the webhook at the most; further ones are lost")
	f.IntVar(&o.webhook.Batch, "audit-webhook-batch-max-size", 400, "events that are sent together at the most")
	f.DurationVar(&o.webhook.Wait, "audit-webhook-batch-max-wait", 30*time.Second, "how long an event waits for others to be sent with")
	f.DurationVar(&o.webhook.Backoff, "audit-webhook-initial-backoff", 10*time.Second, "time before the second try to send events")
	f.IntVar(&o.maxBackups, "audit-log-maxbackup", 10, "how many audit logs put aside are kept; 0 keeps all")
}

// open is the audit log that the flags ask for, nil for none.
func (o *auditOptions) open(dataDir string, log *slog.Logger) (*audit.Log, error) {
	if o.maxSize < 0 || o.maxAge < 0 || o.maxBackups < 0 {
		return nil, fmt.Errorf("--audit-log-maxsize, --audit-log-maxage and --audit-log-maxbackup must not be negative")
	}
	cfg := audit.Config{
		Path: o.path, MaxBytes: int64(o.maxSize) << 20, MaxAge: time.Duration(o.maxAge) * 24 * time.Hour, MaxBackups: o.maxBackups, Log: log,
	}
	if cfg.Path == "" && dataDir != "" {
		cfg.Path = filepath.Join(dataDir, "audit", "audit.log")
	}
	if o.format != auditFormat {
		return nil, fmt.Errorf("--audit-log-format=%s is not offered: use %s", o.format, auditFormat)
	}
	switch cfg.Path {
	case noAudit:
		cfg.Path = ""
	case toOutput:
		cfg.Path, cfg.Out = "", os.Stdout
	}
	var err error
	if cfg.Mode, err = audit.ParseMode(o.mode); err != nil {
		return nil, fmt.Errorf("--audit-log-mode: %w", err)
	}
	if o.webhook.Mode, err = audit.ParseMode(o.webhookMode); err != nil {
		return nil, fmt.Errorf("--audit-webhook-mode: %w", err)
	}
	if o.webhook.Kubeconfig != "" {
		o.webhook.Log = log
		if cfg.Webhook, err = audit.NewWebhook(o.webhook); err != nil {
			return nil, err
		}
	}
	if cfg.Path == "" && cfg.Out == nil && cfg.Webhook == nil {
		return nil, nil
	}
	if o.policy != "" {
		data, err := os.ReadFile(o.policy)
		if err != nil {
			return nil, fmt.Errorf("read --audit-policy-file: %w", err)
		}
		if cfg.Policy, err = audit.ParsePolicy(data); err != nil {
			return nil, fmt.Errorf("read --audit-policy-file %s: %w", o.policy, err)
		}
	}
	return audit.New(cfg)
}
