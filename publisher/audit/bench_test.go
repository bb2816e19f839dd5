package audit_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"nimble-bridge/publisher/audit"
	"nimble-bridge/publisher/event"
)

// loaded is a site with many events of 2.5 KB.
func loaded(b *testing.B, events int) *site {
	b.Helper()
	s := newSite(b)
	js, err := jetstream.New(s.nc, jetstream.WithPublishAsyncMaxPending(1024))
	if err != nil {
		b.Fatal(err)
	}
	filler := strings.Repeat("x", 1800)
	for i := range events {
		m := s.event(event.Created, fmt.Sprint("c", i))
		m.Data = fmt.Appendf(m.Data[:len(m.Data)-1], `,"filler":"%s"}`, filler)
		if _, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	if last := s.last(); last != uint64(events) {
		b.Fatalf("the stream has %d events, want %d", last, events)
	}
	return s
}

// BenchmarkAudit audits a stream from its beginning: server, consumer, hashes, disk and acknowledgements.
func BenchmarkAudit(b *testing.B) {
	const events = 20_000
	s := loaded(b, events)
	b.ReportAllocs()
	for b.Loop() {
		a := s.audit(folder(b))
		a.reaches(events)
		if err := a.ends(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*events)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkVerify verifies a log, alone and against the stream.
func BenchmarkVerify(b *testing.B) {
	const events = 20_000
	s := loaded(b, events)
	dir := folder(b)
	s.audited(dir)
	for name, verify := range map[string]func() *audit.Report{
		"alone":  func() *audit.Report { return alone(b, dir) },
		"stream": func() *audit.Report { return s.verify(dir) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				holds(b, verify())
			}
			b.ReportMetric(float64(b.N*events)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
