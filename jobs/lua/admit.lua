-- One round trip decides what a trigger does (CONTRACT section 2).
-- in: id, job, iso, how ('defer' | 'here' | 'process-queue'), mode, by, cooldown_ms, walker
-- out: {what, run id, …}: 'deactivated' until_ms | 'running' retry_ms stale | 'joined' workers | 'started'
--      | 'empty' | 'cooling' left_ms last_ms | 'queued' workers
local a = cjson.decode(ARGV[1])

local until_ms = tonumber(call('GET', K.deactivated) or '')
if until_ms and (until_ms == 0 or until_ms > now) then return { 'deactivated', '', ms(until_ms) } end
if a.how == 'process-queue' then call('SET', K.process_queue_seen, ms(now), 'EX', C.process_queue_s) end

local function workers()  -- heard of lately; process-queue counts as one
  call('ZREMRANGEBYSCORE', K.workers, '-inf', ms(now - C.worker_ms))
  return call('ZCARD', K.workers) + call('EXISTS', K.process_queue_seen)
end

local function running(id)
  local stale = #live_walkers(id) == 0
  if stale then ensure_job(id, a.job, a.iso) end
  keep(id)
  return { 'running', id, call('PTTL', K.lock), stale and 1 or 0 }
end

local function start_here(id)
  keep(id)
  if not begin(id) then return running(call('GET', K.lock)) end
  call('ZADD', key(id, 'walkers'), ms(now + C.lock_ms), a.walker)
  ensure_job(id, a.job, a.iso)
  keep(id)
  return { 'started', id }
end

local active = call('GET', K.active)
local status = active and call('HGET', K.run .. active, 'status')
if status == 'running' then return running(active) end
if status == 'queued' then
  if a.how ~= 'defer' then return start_here(active) end
  ensure_job(active, a.job, a.iso)
  keep(active)
  return { 'joined', active, workers() }
end
if a.how == 'process-queue' then return { 'empty', '' } end

local claim = call('GET', K.cooldown)
local last, of = string.match(claim or '', '^(%d+) (.+)$')
local left = last and last + a.cooldown_ms - now or 0
if a.cooldown_ms > 0 and left >= C.jitter_ms then return { 'cooling', of, ms(left), last } end

local r = K.run .. a.id
call('HSET', r, 'status', 'queued', 'mode', a.mode, 'by', a.by, 'queued_ms', ms(now))
call('SET', K.active, a.id)
call('ZADD', K.runs, ms(now), a.id)
call('ZREMRANGEBYRANK', K.runs, 0, -1 - C.most_runs)
call('ZREMRANGEBYSCORE', K.runs, '-inf', ms(now - C.retention * 1000))
if a.how ~= 'defer' then return start_here(a.id) end
stamp_cooldown(a.id)
ensure_job(a.id, a.job, a.iso)
keep(a.id)
return { 'queued', a.id, workers() }
