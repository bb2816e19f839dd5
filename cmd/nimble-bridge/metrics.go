package main

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"nimble-bridge/nimble"
	"nimble-bridge/poller"
)

// metrics counts what the bridge does. Those of an account begin when the account is known.
type metrics struct {
	registry *prometheus.Registry

	requests        *prometheus.CounterVec
	requestDuration *prometheus.HistogramVec

	events   *prometheus.CounterVec
	polls    *prometheus.CounterVec
	rejected *prometheus.CounterVec
	duration prometheus.Histogram
	delay    prometheus.Histogram

	reconcileRequests prometheus.Counter
	retries           prometheus.Counter
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nimble_bridge_api_requests_total",
			Help: "Requests to the Nimble API, retries included, by endpoint and HTTP status; code 0: no answer.",
		}, []string{"endpoint", "code"}),
		requestDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "nimble_bridge_api_request_duration_seconds",
			Help:    "Time from sending a request to the end of its answer.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"endpoint"}),
	}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.requests, m.requestDuration)
	b := thisBuild()
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "nimble_bridge_build_info", Help: "Always 1; the labels say which build runs.",
		ConstLabels: prometheus.Labels{"version": b.Version, "commit": b.Commit, "go": b.Go, "nats": b.NATSServer},
	}, func() float64 { return 1 }))
	return m
}

// requested notes one request to the API.
func (m *metrics) requested(r nimble.RequestInfo) {
	m.requests.WithLabelValues(r.Endpoint, strconv.Itoa(r.Status)).Inc()
	m.requestDuration.WithLabelValues(r.Endpoint).Observe(r.Duration.Seconds())
}

// account begins the metrics of an account. status is asked at each scrape, and so is behind.
func (m *metrics) account(account string, status func() poller.Status, behind func(context.Context) (uint64, error), leads func() bool) {
	labels := prometheus.Labels{"account": account}
	m.events = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "nimble_bridge_events_total", Help: "Events stored in the stream, by type.", ConstLabels: labels,
	}, []string{"type"})
	m.polls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "nimble_bridge_polls_total", Help: "Polls, by result: success or failure.", ConstLabels: labels,
	}, []string{"result"})
	m.rejected = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "nimble_bridge_rejected_records_total", Help: "Records that could not be understood, each time one was seen, by reason.", ConstLabels: labels,
	}, []string{"reason"})
	m.duration = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "nimble_bridge_poll_duration_seconds", Help: "Time from the beginning of a poll to its end.", ConstLabels: labels,
		Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800},
	})
	m.delay = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "nimble_bridge_event_delay_seconds", Help: "Time from a contact's updated to the stream's acknowledgement of its event; snapshots are left out.", ConstLabels: labels,
		Buckets: []float64{.1, .5, 1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 900, 3600, 86400},
	})
	m.reconcileRequests = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "nimble_bridge_reconcile_requests_total", Help: "Requests that reconciliations have cost.", ConstLabels: labels,
	})
	m.retries = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "nimble_bridge_publish_retries_total", Help: "Times that something was published again because it was refused or not acknowledged.", ConstLabels: labels,
	})
	m.registry.MustRegister(m.events, m.polls, m.rejected, m.duration, m.delay, m.reconcileRequests, m.retries)

	gauge := func(name, help string, value func() (float64, bool)) {
		m.registry.MustRegister(&gaugeFunc{prometheus.NewDesc(name, help, nil, labels), value})
	}
	gauge("nimble_bridge_watermark_timestamp_seconds", "Time on Nimble's clock up to which everything is published.", func() (float64, bool) { return seconds(status().Settled) })
	gauge("nimble_bridge_last_success_timestamp_seconds", "When the last complete poll ended.", func() (float64, bool) { return seconds(status().LastSuccess) })
	gauge("nimble_bridge_contacts", "Contacts known and not deleted.", func() (float64, bool) { return float64(status().Contacts), true })
	gauge("nimble_bridge_deletions_held", "Deletions that wait for a person, because they are more than DELETE_LIMIT lets pass.", func() (float64, bool) { return float64(status().Held), true })
	gauge("nimble_bridge_last_reconcile_timestamp_seconds", "When the last complete reconciliation ended.", func() (float64, bool) { return seconds(status().LastReconcile) })
	gauge("nimble_bridge_leader", "1 on the bridge that polls the account, 0 on those that stand by.", func() (float64, bool) {
		if leads() {
			return 1, true
		}
		return 0, true
	})
	gauge("nimble_bridge_bucket_behind_events", "Events that the bucket of latest events does not show yet.", func() (float64, bool) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		n, err := behind(ctx)
		return float64(n), err == nil
	})

	// A rate over a counter misses its first step if the counter is not there before it.
	for _, kind := range []poller.Kind{poller.Snapshot, poller.Created, poller.Updated, poller.Deleted} {
		m.events.WithLabelValues(string(kind))
	}
	m.polls.WithLabelValues("success")
	m.polls.WithLabelValues("failure")
}

// published notes changes that the stream has acknowledged.
func (m *metrics) published(changes []poller.Change) {
	now := time.Now()
	for _, c := range changes {
		m.events.WithLabelValues(string(c.Kind)).Inc()
		if (c.Kind == poller.Created || c.Kind == poller.Updated) && !c.Contact.Updated.IsZero() {
			m.delay.Observe(max(0, now.Sub(c.Contact.Updated).Seconds()))
		}
	}
}

// polled notes the end of a poll.
func (m *metrics) polled(r poller.PollResult) {
	result := "success"
	if r.Err != nil {
		result = "failure"
	}
	m.polls.WithLabelValues(result).Inc()
	m.duration.Observe(r.Duration.Seconds())
}

// retried notes that something is published again.
func (m *metrics) retried() {
	if m.retries != nil { // Nothing is published before the account's metrics begin.
		m.retries.Inc()
	}
}

// reconciled notes the end of a reconciliation.
func (m *metrics) reconciled(r poller.ReconcileResult) { m.reconcileRequests.Add(float64(r.Requests)) }

// gaugeFunc is a gauge that has no value at times.
type gaugeFunc struct {
	desc  *prometheus.Desc
	value func() (float64, bool)
}

// Describe implements [prometheus.Collector].
func (g *gaugeFunc) Describe(ch chan<- *prometheus.Desc) { ch <- g.desc }

// Collect implements [prometheus.Collector].
func (g *gaugeFunc) Collect(ch chan<- prometheus.Metric) {
	if v, ok := g.value(); ok {
		ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, v)
	}
}

// seconds is a time as Prometheus has them, if there is one.
func seconds(t time.Time) (float64, bool) {
	if t.IsZero() {
		return 0, false
	}
	return float64(t.UnixMilli()) / 1000, true
}
