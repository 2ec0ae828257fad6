-- The health of a site: 'dispatched verified streak since reason URL', times in hexadecimal Unix seconds, 0 = never.
-- Of its trigger a reason is the outcome's letter; `stuck` is one that a trigger does not take back.
local function bucket(site)  -- a hundred sites a hash, so that Redis keeps it as one small block
  local number = tonumber(site)
  return K.sites .. (number and math.floor(number / 100) or string.sub(site, 1, 5))
end

-- what: a letter of an outcome, 'verified' or 'stuck'; 'idle': nothing is due, or nobody can tell (url: nil, as it was)
-- ended: of a verification, when its run did (ms); it takes nothing back that failed in a later one
local function note(site, url, what, ended)
  local seconds, hash = string.format('%x', time[1]), bucket(site)
  local old = call('HGET', hash, site) or '0 0 0 0 - '
  local dispatched, verified, streak, since, reason, place = string.match(old, '^(%x+) (%x+) (%d+) (%x+) (%S+) (.*)$')
  local failed = what == 'stuck' or string.find(C.error_letters, what, 1, true)
  if what == 'd' or what == 't' then dispatched = seconds end
  if what == 'verified' then
    verified = seconds
    call('ZREM', K.due, site)
  end
  if failed then
    if streak == '0' then since = seconds end
    if reason ~= what then
      call('ZREM', reason == 'stuck' and K.stuck or K.failing, site)
      call('ZADD', what == 'stuck' and K.stuck or K.failing, tonumber(since, 16), site)
    end
    streak, reason = streak + 1, what
  elseif streak ~= '0' and (what == 'verified' and (reason == 'stuck' or tonumber(since, 16) * 1000 <= ended)
    or what == 'd' and reason ~= 'stuck' or what == 'idle' and reason == 'stuck') then
    streak, since, reason = 0, 0, '-'
    call('ZREM', K.failing, site)
    call('ZREM', K.stuck, site)
  end
  call('HSET', hash, site, table.concat({ dispatched, verified, streak, since, reason, url or place }, ' '))
end

local function note_outcomes(id, sites, outcomes)  -- of a batch that is over; what is to be verified is put aside
  local unverified = {}
  for i, site in ipairs(sites) do
    local letter = string.sub(outcomes, i, i)
    if letter ~= '.' then note(site[1], site[2], letter) end
    if site[3] and (letter == 'd' or letter == 't') then table.insert(unverified, site) end
  end
  if #unverified > 0 then
    call('RPUSH', key(id, 'unverified'), cjson.encode(unverified))
    call('EXPIRE', key(id, 'unverified'), 86400)
  end
end

local function end_if_cancelled(id)  -- once nobody walks it any more; whether it is over
  local by = call('HGET', K.run .. id, 'cancelled_by')
  if not by or #live_walkers(id) > 0 then return false end
  local outs = call('HGETALL', key(id, 'out'))
  for i = 1, #outs, 2 do  -- of batches that are not done: what was triggered before
    if string.find(outs[i + 1], '[^.]') then
      note_outcomes(id, cjson.decode(call('HGET', key(id, 'pages'), outs[i])), outs[i + 1])
    end
  end
  finish(id, 'cancelled', 'cancelled', 'The run was cancelled by ' .. by .. '.')
  return true
end
