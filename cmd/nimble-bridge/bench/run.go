package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"nimble-bridge/publisher"
	"nimble-bridge/publisher/event"
)

// The names that the bridge uses unless it is told others.
const (
	streamName = "NIMBLE"
	bucketName = "nimble-contacts"
	prefix     = "nimble"
)

// The parts of a run.
const (
	groupSnapshot = "snapshot"
	groupRestart  = "restart"
	groupSingle   = "single edits"
	groupMany     = "many at once"
	groupIdle     = "idle"
)

// run is one run.
type run struct {
	Options
	measured

	dir string
	say func(string)

	simulator, server, bridge *process
	nc                        *nats.Conn
	js                        jetstream.JetStream
	account                   string
}

// everything is all of a run.
func (r *run) everything(ctx context.Context) (err error) {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	defer func() {
		for _, p := range []*process{r.bridge, r.server, r.simulator} {
			if p != nil {
				p.kill()
			}
		}
	}()
	r.say(fmt.Sprintf("inventing %d contacts", r.Contacts))
	if err := r.startSimulator(ctx); err != nil {
		return err
	}
	if r.server, err = r.startServer(ctx, "bridge"); err != nil {
		return err
	}
	if r.nc, err = nats.Connect(natsURL(r.server)); err != nil {
		return fmt.Errorf("NATS: %w", err)
	}
	defer r.nc.Close()
	if r.js, err = jetstream.New(r.nc); err != nil {
		return err
	}
	for _, part := range []func(context.Context) error{r.snapshot, r.restart, r.single, r.many, r.idle} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// The bridge that takes the snapshot polls as it does by default. The one after it polls quickly and has a short overlap, so that nobody waits for minutes until it is idle.
const (
	usualInterval = 10 * time.Second
	usualOverlap  = 2 * time.Minute
	quickInterval = 20 * time.Millisecond
	quickOverlap  = 2 * time.Second
)

// snapshot measures the snapshot and both limits.
func (r *run) snapshot(ctx context.Context) (err error) {
	r.say("snapshot")
	if r.bridge, err = r.startBridge(ctx, usualInterval, usualOverlap); err != nil {
		return err
	}
	last, err := r.stored(ctx, uint64(r.Contacts))
	if err != nil {
		return err
	}
	took := last.Sub(r.bridge.began)
	if err := r.ready(ctx); err != nil {
		return err
	}
	if err := r.until(ctx, func(s bridgeStatus) bool { return !s.Finished.IsZero() }); err != nil {
		return err
	}
	var log requestLog
	if err := r.askSimulator(ctx, http.MethodGet, fmt.Sprintf("/admin/requests?last=%d", r.Contacts), nil, &log); err != nil {
		return err
	}
	_, peak := r.bridge.memory()
	cpu, err := r.bridge.stop()
	if err != nil {
		return err
	}
	r.bridge = nil

	r.say("the limits: fetching the same pages, appending the same events")
	pages := log.listings()
	fetching, err := r.fetch(ctx, pages)
	if err != nil {
		return err
	}
	appended, publishing, err := r.append(ctx)
	if err != nil {
		return err
	}
	contacts := float64(r.Contacts)
	rate, appending := contacts/took.Seconds(), float64(appended)/publishing.Seconds()
	// The simulator remembers the last requests only, of a very large account not all.
	fetched := contacts * float64(len(pages)) / float64(log.listed()) / fetching.Seconds()
	r.add(groupSnapshot, "from the start of the process to the last event", "s", took.Seconds())
	r.add(groupSnapshot, "rate", "contacts/s", rate)
	r.add(groupSnapshot, "limit: fetching the same pages, one after another", "contacts/s", fetched)
	r.add(groupSnapshot, "limit: nats.go alone appending the same events", "events/s", appending)
	r.add(groupSnapshot, "rate, of what nats.go alone appends", "%", 100*rate/appending)
	r.add(groupSnapshot, "rate, of both limits one after the other", "%", 100*rate*(1/fetched+1/appending))
	r.add(groupSnapshot, "requests", "", float64(log.Total))
	r.add(groupSnapshot, "bridge's CPU for a contact", "µs", float64(cpu.Microseconds())/contacts)
	if visible {
		r.add(groupSnapshot, "bridge's peak memory", "MB", peak/1e6)
	}
	return nil
}

// stored waits until the stream has that many messages about contacts and returns when the last of them was stored, by the clock that both processes share.
func (r *run) stored(ctx context.Context, messages uint64) (time.Time, error) {
	for {
		if err := r.bridge.check(); err != nil {
			return time.Time{}, err
		}
		stream, err := r.js.Stream(ctx, streamName)
		if err == nil {
			info := stream.CachedInfo()
			if info.State.Msgs >= messages {
				return info.State.LastTime, nil
			}
		} else if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return time.Time{}, err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return time.Time{}, err
		}
	}
}

// bridgeStatus is what is read of the bridge's /status.
type bridgeStatus struct {
	Ready    bool      `json:"ready"`
	Account  string    `json:"account"`
	Finished time.Time `json:"snapshot_finished"`
	Contacts int       `json:"contacts"`
	// Reconcile is the last reconciliation.
	Reconcile struct {
		Requests    int `json:"requests"`
		Differences int `json:"differences"`
	} `json:"reconcile"`
}

// ready waits until the bridge says that it does its job. That costs it nothing, other than its status.
func (r *run) ready(ctx context.Context) error {
	for {
		if err := r.bridge.check(); err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.bridge.url+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := control.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// until asks the bridge for its status until that is as wanted.
func (r *run) until(ctx context.Context, wanted func(bridgeStatus) bool) error {
	for {
		if err := r.bridge.check(); err != nil {
			return err
		}
		var s bridgeStatus
		if err := ask(ctx, http.MethodGet, r.bridge.url+"/status", nil, &s); err != nil {
			return err
		}
		r.account = s.Account
		if wanted(s) {
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// requestLog is what the simulator tells of the requests that it has answered.
type requestLog struct {
	Total  int `json:"total"`
	Served []struct {
		Endpoint string `json:"endpoint"`
		Count    int    `json:"count"`
	} `json:"served"`
	// Requests are the last ones, newest first.
	Requests []struct {
		Path  string `json:"path"`
		Query string `json:"query"`
	} `json:"requests"`
}

// listings are the pages of contacts that were asked for, as far as they are remembered, in their order.
func (l *requestLog) listings() []string {
	var pages []string
	for _, q := range slices.Backward(l.Requests) {
		if strings.HasSuffix(q.Path, "/contacts") {
			pages = append(pages, q.Path+"?"+q.Query)
		}
	}
	return pages
}

// listed is how many pages of contacts were asked for.
func (l *requestLog) listed() (n int) {
	for _, s := range l.Served {
		if s.Endpoint == "contacts" {
			n += s.Count
		}
	}
	return n
}

// fetch asks for pages and throws them away.
func (r *run) fetch(ctx context.Context, pages []string) (time.Duration, error) {
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}} // What comes compressed stays so.
	defer client.CloseIdleConnections()
	began := time.Now()
	for _, page := range pages {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.simulator.url+page, nil)
		if err != nil {
			return 0, err
		}
		req.Header.Set("Authorization", "Bearer "+apiKey)
		req.Header.Set("Accept-Encoding", "gzip")
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			return 0, err
		}
		if resp.StatusCode != http.StatusOK {
			return 0, fmt.Errorf("simulator: %s", resp.Status)
		}
	}
	return time.Since(began), nil
}

// append appends the stream's first messages to the same stream on a server of its own.
func (r *run) append(ctx context.Context) (appended int, took time.Duration, err error) {
	const most = 100_000 // They are held in memory.
	batches, err := r.batches(ctx, most)
	if err != nil {
		return 0, 0, err
	}
	server, err := r.startServer(ctx, "alone")
	if err != nil {
		return 0, 0, err
	}
	defer server.kill()
	conn, err := publisher.Connect(ctx, publisher.ConnectConfig{URLs: []string{natsURL(server)}}, zap.NewNop())
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	// The same stream, sourced by the same bucket.
	if _, err := publisher.Open(ctx, conn, publisher.Config{Account: r.account, Stream: streamName, Prefix: prefix, Bucket: bucketName, Manage: true}, zap.NewNop()); err != nil {
		return 0, 0, err
	}
	nc, err := nats.Connect(natsURL(server))
	if err != nil {
		return 0, 0, err
	}
	defer nc.Close()
	began := time.Now()
	for _, batch := range batches {
		if err := commit(ctx, nc, batch); err != nil {
			return 0, 0, err
		}
		appended += len(batch)
	}
	return appended, time.Since(began), nil
}

// batchSize is how many messages the bridge appends at once, at most.
const batchSize = 500

// batches reads messages back from the stream, put together to full batches: the fewer there are, the faster NATS is.
func (r *run) batches(ctx context.Context, most int) ([][]*nats.Msg, error) {
	consumer, err := r.js.OrderedConsumer(ctx, streamName, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return nil, err
	}
	defer messages.Stop()
	var all []*nats.Msg
	for range min(most, r.Contacts) {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, err
		}
		all = append(all, &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
	}
	var batches [][]*nats.Msg
	for batch := range slices.Chunk(all, batchSize) {
		id := nuid.Next()
		for i, m := range batch {
			m.Header.Set("Nats-Batch-Id", id)
			m.Header.Set("Nats-Batch-Sequence", strconv.Itoa(i+1))
			m.Header.Del("Nats-Batch-Commit")
		}
		batch[len(batch)-1].Header.Set("Nats-Batch-Commit", "1")
		batches = append(batches, batch)
	}
	return batches, nil
}

// commit appends one batch.
func commit(ctx context.Context, nc *nats.Conn, batch []*nats.Msg) error {
	last := len(batch) - 1
	for _, m := range batch[:last] {
		if err := nc.PublishMsg(m); err != nil {
			return err
		}
	}
	reply, err := nc.RequestMsgWithContext(ctx, batch[last])
	if err != nil {
		return err
	}
	var ack struct {
		Error json.RawMessage `json:"error"`
		Count int             `json:"count"`
	}
	if err := json.Unmarshal(reply.Data, &ack); err != nil {
		return err
	}
	if ack.Error != nil || ack.Count != len(batch) {
		return fmt.Errorf("NATS refuses a batch of %d: %s", len(batch), reply.Data)
	}
	return nil
}

// restart starts the bridge again, with all contacts known.
func (r *run) restart(ctx context.Context) (err error) {
	r.say("restart")
	if err := r.askSimulator(ctx, http.MethodDelete, "/admin/requests", nil, nil); err != nil {
		return err
	}
	if r.bridge, err = r.startBridge(ctx, quickInterval, quickOverlap); err != nil {
		return err
	}
	if err := r.ready(ctx); err != nil {
		return err
	}
	took := time.Since(r.bridge.began)
	if err := r.until(ctx, func(s bridgeStatus) bool { return s.Contacts == r.Contacts }); err != nil {
		return err
	}
	var log requestLog
	if err := r.askSimulator(ctx, http.MethodGet, "/admin/requests?last=1", nil, &log); err != nil {
		return err
	}
	r.add(groupRestart, "until ready", "s", took.Seconds())
	r.add(groupRestart, "pages of contacts asked for until then", "", float64(log.listed()))
	if visible {
		now, peak := r.bridge.memory()
		r.add(groupRestart, "bridge's memory", "MB", now/1e6)
		r.add(groupRestart, "bridge's peak memory", "MB", peak/1e6)
	}
	return nil
}

// single edits contacts one by one, has the bridge poll, and measures until the event comes out of the stream.
func (r *run) single(ctx context.Context) error {
	r.say(fmt.Sprintf("%d single edits", r.Single))
	events, stop, err := r.watch(ctx)
	if err != nil {
		return err
	}
	defer stop()
	ids, err := r.ids(ctx, r.Single)
	if err != nil {
		return err
	}
	var delays []time.Duration
	for i, id := range ids {
		if err := r.edit(ctx, map[string]any{"id": id}, i); err != nil {
			return err
		}
		began := time.Now()
		if err := r.pollNow(); err != nil {
			return err
		}
		for {
			m, err := events.Next(jetstream.NextContext(ctx))
			if err != nil {
				return err
			}
			if strings.HasSuffix(m.Subject(), "."+id) {
				break
			}
		}
		delays = append(delays, time.Since(began))
	}
	slices.Sort(delays)
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	r.add(groupSingle, "edit to event, p50", "ms", milliseconds(percentile(delays, .5)))
	r.add(groupSingle, "edit to event, p99", "ms", milliseconds(percentile(delays, .99)))
	r.add(groupSingle, "edit to event, longest", "ms", milliseconds(delays[len(delays)-1]))
	return nil
}

// many edits and deletes many contacts at once, and measures until the last event has come.
func (r *run) many(ctx context.Context) error {
	r.say(fmt.Sprintf("%d edits, %d deletions", r.Edits, r.Deletions))
	events, stop, err := r.watch(ctx)
	if err != nil {
		return err
	}
	defer stop()
	wait := func(verb event.Verb, n int) error {
		for n > 0 {
			m, err := events.Next(jetstream.NextContext(ctx))
			if err != nil {
				return err
			}
			if strings.Contains(m.Subject(), "."+string(verb)+".") {
				n--
			}
		}
		return nil
	}
	if err := r.edit(ctx, map[string]any{"count": r.Edits}, -1); err != nil {
		return err
	}
	began := time.Now()
	if err := wait(event.Updated, r.Edits); err != nil {
		return err
	}
	r.add(groupMany, fmt.Sprintf("from %d edits to the last event", r.Edits), "s", time.Since(began).Seconds())

	if err := r.askSimulator(ctx, http.MethodPost, "/admin/delete", map[string]any{"count": r.Deletions}, nil); err != nil {
		return err
	}
	began = time.Now()
	if err := wait(event.Deleted, r.Deletions); err != nil {
		return err
	}
	took := time.Since(began)
	requests := 0
	if err := r.until(ctx, func(s bridgeStatus) bool {
		requests = s.Reconcile.Requests
		return s.Reconcile.Differences >= r.Deletions
	}); err != nil {
		return err
	}
	r.add(groupMany, fmt.Sprintf("from %d deletions to the last event", r.Deletions), "s", took.Seconds())
	r.add(groupMany, "requests of the reconciliation that found them", "", float64(requests))
	return nil
}

// idle measures what a bridge costs that has nothing to do.
func (r *run) idle(ctx context.Context) error {
	r.say(fmt.Sprintf("idle for %s", r.Idle))
	// The edits have to be older than the overlap first.
	if err := pause(ctx, 2*quickOverlap); err != nil {
		return err
	}
	type moment struct {
		polls, heap float64
		requests    int
		cpu         time.Duration
	}
	look := func() (m moment, err error) {
		if m.requests, err = r.asked(ctx); err != nil {
			return m, err
		}
		m.cpu = r.bridge.cpu()
		values, err := r.metrics(ctx)
		m.polls, m.heap = values[`nimble_bridge_polls_total{account="`+r.account+`",result="success"}`], values["go_memstats_heap_inuse_bytes"]
		return m, err
	}
	before, err := look()
	if err != nil {
		return err
	}
	if err := pause(ctx, r.Idle); err != nil {
		return err
	}
	after, err := look()
	if err != nil {
		return err
	}
	polls := after.polls - before.polls
	if polls < 1 {
		return fmt.Errorf("no poll in %s", r.Idle)
	}
	r.add(groupIdle, "polls", "", polls)
	r.add(groupIdle, "requests for a poll", "", float64(after.requests-before.requests)/polls)
	if visible {
		r.add(groupIdle, "bridge's CPU for a poll", "ms", (after.cpu-before.cpu).Seconds()*1000/polls)
		now, _ := r.bridge.memory()
		r.add(groupIdle, "bridge's memory", "MB", now/1e6)
	}
	_, err = r.bridge.stop()
	r.bridge = nil
	return err
}

// watch delivers what is appended from now on.
func (r *run) watch(ctx context.Context) (jetstream.MessagesContext, func(), error) {
	consumer, err := r.js.OrderedConsumer(ctx, streamName, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverNewPolicy})
	if err != nil {
		return nil, nil, err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return nil, nil, err
	}
	return messages, messages.Stop, nil
}

// pollNow has the bridge poll, and does not wait for its answer: an answer of the bridge's status, after the poll.
func (r *run) pollNow() error {
	return r.nc.PublishRequest("nimble-bridge."+r.account+".poll-now", nats.NewInbox(), nil)
}

// ids returns the ids of some contacts.
func (r *run) ids(ctx context.Context, n int) ([]string, error) {
	var answer struct {
		Contacts []struct {
			ID string `json:"id"`
		} `json:"contacts"`
	}
	if err := r.askSimulator(ctx, http.MethodGet, "/admin/contacts?limit="+strconv.Itoa(n), nil, &answer); err != nil {
		return nil, err
	}
	var ids []string
	for _, c := range answer.Contacts {
		ids = append(ids, c.ID)
	}
	if len(ids) < n {
		return nil, fmt.Errorf("the simulator shows %d contacts, want %d", len(ids), n)
	}
	return ids, nil
}

// edit gives contacts a title that they never had.
func (r *run) edit(ctx context.Context, which map[string]any, n int) error {
	which["fields"] = map[string]string{"title": fmt.Sprintf("Edited at %d (%d)", time.Now().UnixNano(), n)}
	return r.askSimulator(ctx, http.MethodPost, "/admin/edit", which, nil)
}

// asked is how many requests the simulator has answered.
func (r *run) asked(ctx context.Context) (int, error) {
	var log requestLog
	err := r.askSimulator(ctx, http.MethodGet, "/admin/requests?last=1", nil, &log)
	return log.Total, err
}

// metrics reads the bridge's metrics.
func (r *run) metrics(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.bridge.url+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := control.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	values := make(map[string]float64)
	for line := range strings.Lines(string(body)) {
		name, text, ok := strings.Cut(strings.TrimSpace(line), " ")
		if value, err := strconv.ParseFloat(text, 64); ok && err == nil {
			values[name] = value
		}
	}
	return values, nil
}

func (r *run) askSimulator(ctx context.Context, method, path string, body, answer any) error {
	if err := r.simulator.check(); err != nil {
		return err
	}
	return ask(ctx, method, r.simulator.url+path, body, answer)
}

// control speaks to the children about what is not measured.
var control = &http.Client{Timeout: time.Minute}

// ask makes a request with a JSON body, if there is one, and reads a JSON answer, if one is wanted.
func ask(ctx context.Context, method, target string, body, answer any) error {
	var sent io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, sent)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := control.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s %s: %s: %s", method, req.URL.Path, resp.Status, bytes.TrimSpace(data))
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("%s %s: %w", method, req.URL.Path, err)
	}
	return nil
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
