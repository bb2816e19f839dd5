package main

import (
	"io"
	"os"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"
)

// newLogger returns a logger that writes to w, as a person or as a machine reads best.
func newLogger(w io.Writer, format logFormat, level logLevel) *zap.Logger {
	encoding := zapcore.EncoderConfig{
		TimeKey: "time", LevelKey: "level", MessageKey: "msg", NameKey: "logger",
		LineEnding:     zapcore.DefaultLineEnding,
		EncodeLevel:    zapcore.LowercaseLevelEncoder,
		EncodeTime:     utcTime,
		EncodeDuration: zapcore.StringDurationEncoder,
		EncodeName:     zapcore.FullNameEncoder,
	}
	var encoder zapcore.Encoder
	if format == "console" || format == "auto" && isTerminal(w) {
		encoding.EncodeTime = readableTime
		encoding.EncodeLevel = zapcore.CapitalLevelEncoder
		if isTerminal(w) {
			encoding.EncodeLevel = zapcore.CapitalColorLevelEncoder
		}
		encoding.ConsoleSeparator = "  "
		encoder = zapcore.NewConsoleEncoder(encoding)
	} else {
		encoder = zapcore.NewJSONEncoder(encoding)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), zapcore.Level(level)))
}

func utcTime(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
	enc.AppendString(t.UTC().Format("2006-01-02T15:04:05.000Z"))
}

// readableTime writes the local time of day, and the date where that would not be enough. It serves the line's own time and times within it.
func readableTime(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
	switch {
	case t.IsZero():
		enc.AppendString("never")
	case time.Since(t).Abs() < 12*time.Hour:
		enc.AppendString(t.Local().Format("15:04:05.000"))
	default:
		enc.AppendString(t.Local().Format(time.RFC3339))
	}
}

// isTerminal tells whether somebody sits at the other end of w.
func isTerminal(w any) bool {
	if t, ok := w.(interface{ isTerminal() bool }); ok {
		return t.isTerminal()
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// wantsColor tells whether colours help whoever reads w; see no-color.org.
func wantsColor(w io.Writer) bool {
	return isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
