-- One round trip decides what a trigger does (CONTRACT section 2).
-- in: id, how ('defer' | 'here' | 'process-queue'), mode, by, cooldown_ms, walker, clock (see looked_at)
-- out: {what, run id, …}: 'deactivated' until_ms | 'running' retry_ms stale | 'joined' workers | 'started'
--      | 'taken' (by another clock) | 'empty' | 'cooling' left_ms last_ms | 'queued' workers
local PROCESS_QUEUE_SECONDS = 600
local JITTER_MS = 1000  -- a call less than this before the cooldown's end is admitted (crontab jitter)

if not looked_at() then return { 'taken', '' } end
local function came(what, id)  -- what there is to keep of a clock's tick
  local _, _, tick, missed = unpack(a.clock or {})
  if not tick then return end
  call('HSET', K.clock, 'last', tick .. ': ' .. what .. (id and ' ' .. id or ''))
  call('HINCRBY', K.clock, 'missed', missed)
end

local until_ms = tonumber(call('GET', K.deactivated) or '')
if until_ms and (until_ms == 0 or until_ms > now) then
  came('deactivated')
  return { 'deactivated', '', ms(until_ms) }
end
if a.how == 'process-queue' then call('SET', K.process_queue_seen, ms(now), 'EX', PROCESS_QUEUE_SECONDS) end

local function running(id)
  came('running', id)
  local stale = #live_walkers(id) == 0
  if stale then ensure_job(id) end
  keep(id)
  return { 'running', id, call('PTTL', K.lock), stale and 1 or 0 }
end

local function waiting(what, id)  -- with the workers heard of lately; process-queue counts as one
  came(what, id)
  ensure_job(id)
  keep(id)
  call('ZREMRANGEBYSCORE', K.workers, '-inf', ms(now - C.worker_ms))
  return { what, id, call('ZCARD', K.workers) + call('EXISTS', K.process_queue_seen) }
end

local function start_here(id)
  if not begin(id) then
    keep(id)
    return running(call('GET', K.lock))
  end
  call('ZADD', key(id, 'walkers'), ms(now + C.lock_ms), a.walker)
  call('HSET', K.run .. id, 'expected', a.walker)
  ensure_job(id)
  keep(id)
  return { 'started', id }
end

local active = call('GET', K.active)
local status = active and call('HGET', K.run .. active, 'status')
if status == 'running' then return running(active) end
if status == 'queued' then return a.how == 'defer' and waiting('joined', active) or start_here(active) end
if a.how == 'process-queue' then return { 'empty', '' } end

local last, of = string.match(call('GET', K.cooldown) or '', '^(%d+) (.+)$')
local left = last and last + a.cooldown_ms - now or 0
if a.cooldown_ms > 0 and left >= JITTER_MS then return { 'cooling', of, ms(left), last } end

call('HSET', K.run .. a.id, 'status', 'queued', 'mode', a.mode, 'by', a.by, 'queued_ms', ms(now))
call('SET', K.active, a.id)
call('ZADD', K.runs, ms(now), a.id)
for _, old in ipairs(call('ZRANGE', K.runs, 0, -1 - C.most_runs)) do
  call('ZREM', K.runs, old)
  call('DEL', K.run .. old, key(old, 'failed'))
end
call('ZREMRANGEBYSCORE', K.runs, '-inf', ms(now - C.retention * 1000))
if a.how ~= 'defer' then return start_here(a.id) end
stamp_cooldown(a.id)
return waiting('queued', a.id)
